# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""The page on high availability: tests hold each of its parts, its numbers are the code's."""

from pathlib import Path
import re

import pytest

import kongming
from kongming.api import health
from kongming.conductor import claims, delivery
from kongming.conf import opts
from kongming.db import connecting, database, reports
from kongming.rpc import client
from kongming.runtime import server_threads
from kongming.standalone import conductor_sync

TESTS = Path(kongming.__file__).parent / "tests"
PAGE = (TESTS.parents[1] / "doc/source/admin/high-availability.rst").read_text()

STANDALONE = "functional/test_standalone.py"
FAULTS = "integration/test_standalone_faults.py"
WHOLE = "integration/test_standalone.py"
SILENT = "integration/test_database_faults.py"
DATABASES = "integration/test_databases.py"
GALERA = "integration/test_galera.py"
TOKENS = "functional/test_tokens.py"
TRUST = "functional/test_trust.py"

#: What the page has a part on, and the tests of what it says there.
PROMISES = {
    "Level, not edge.": [
        (STANDALONE, "test_a_push_that_got_lost_is_made_up_for_by_the_pull"),
        (STANDALONE, "test_a_guest_that_starts_is_placed_before_the_next_pull"),
        (WHOLE, "test_a_host_that_was_down_asks_for_what_it_missed"),
    ],
    "The host is independent.": [
        (FAULTS, "test_a_window_goes_on_without_the_control_plane"),
        ("functional/test_service.py", "test_what_is_wanted_is_brought_about_after_a_restart"),
    ],
    "Numbers tell old from new.": [
        (STANDALONE, "test_an_older_push_that_comes_late_changes_nothing"),
        ("unit/test_outbox.py", "test_the_later_generation_of_two_pushes_is_sent"),
    ],
    "one conductor ends": [(WHOLE, "test_a_conductor_that_is_killed_loses_nothing")],
    "the conductor with the lease": [
        (STANDALONE, "test_when_the_conductor_that_asks_nova_ends_another_one_does"),
        (DATABASES, "test_a_lease_goes_by_the_databases_clock"),
    ],
    "all conductors": [
        (STANDALONE, "test_what_was_asked_while_the_executor_was_away_is_pulled"),
        (STANDALONE, "test_an_executor_asks_again_until_an_answer_can_be_read"),
        ("functional/test_api.py", "test_nobody_answers"),
    ],
    "the database": [
        ("functional/test_api.py", "test_a_database_that_is_away"),
        (DATABASES, "test_a_server_that_was_killed_is_used_again_when_it_is_back"),
        (FAULTS, "test_the_database_may_be_away_for_a_while"),
    ],
    "RabbitMQ, or its alarm is on": [
        ("functional/test_api.py", "test_no_conductor_is_there_at_all"),
        ("integration/test_alarms.py", "test_a_broker_that_is_full_stops_neither_api_nor_host"),
        (WHOLE, "test_a_broker_that_restarts_loses_nothing"),
    ],
    "Nova's API": [
        (STANDALONE, "test_while_nova_does_not_answer_all_stays_as_it_is"),
        (TRUST, "test_while_nova_is_silent_no_host_gets_what_it_has_not_had"),
    ],
    "Keystone": [
        ("integration/test_identity.py", "test_keystone_is_away"),
        (TOKENS, "test_is_not_waited_for_for_ever_and_told_once"),
        (TOKENS, "test_a_silent_keystone_stops_no_server"),
    ],
    "memcached": [(TOKENS, "test_that_is_silent_is_left_alone_for_a_while_and_told_once")],
    "an executor": [
        (WHOLE, "test_hosts_tell_what_they_look_like_and_fall_silent"),
        ("unit/test_db_database.py", "test_a_host_is_unresponsive_after_three_intervals"),
    ],
    "libvirt of a host": [
        ("unit/test_conductor_sync.py", "test_a_snapshot_that_is_unavailable_is_not_sent")
    ],
    "A database that is unresponsive": [
        (SILENT, "test_an_api_whose_database_is_silent_answers_everybody"),
        (SILENT, "test_nobody_waits_for_the_greeting_of_a_server"),
        (SILENT, "test_nobody_waits_for_an_answer_that_does_not_come"),
        (SILENT, "test_a_statement_that_takes_its_time_is_waited_for"),
    ],
    "A database that is slow for a moment": [
        ("unit/test_db_liveness.py", "test_a_request_that_waits_on_another_thread_keeps_waiting"),
        ("unit/test_db_liveness.py", "test_a_moment_without_an_answer_is_waited_for"),
    ],
    "A switch-over": [
        (SILENT, "test_after_a_switch_over_the_old_primary_is_left_at_once"),
        (
            SILENT,
            "test_a_primary_that_is_fenced_in_a_transaction_is_left_and_the_work_done_elsewhere",
        ),
    ],
    "Locks": [
        (SILENT, "test_who_waits_for_a_lock_is_told_that_others_hold_it"),
        (SILENT, "test_who_waits_for_locked_rows_does_not_take_the_last_thread"),
        (SILENT, "test_locks_of_who_is_frozen_are_ended"),
    ],
    "Galera": [
        (GALERA, "test_of_many_who_change_an_allocation_at_both_nodes_one_does"),
        (
            GALERA,
            "test_a_node_that_has_lost_the_others_says_so_and_serves_again_when_they_are_back",
        ),
        (SILENT, "test_a_session_waits_for_other_nodes_if_it_is_told_so"),
    ],
    "Settings of the server": [
        (DATABASES, "test_a_servers_own_isolation_has_nobody_refused"),
        (DATABASES, "test_all_signs_are_kept_whatever_character_set_is_given"),
        (SILENT, "test_a_database_that_lacks_signs_is_refused"),
    ],
    "API": [(FAULTS, "test_an_api_that_is_killed_right_after_it_took_something_loses_nothing")],
    "Conductor": [(FAULTS, "test_executor_and_conductor_are_killed_at_any_moment")],
    "Executor": [(FAULTS, "test_executor_and_conductor_are_killed_at_any_moment")],
    "Host": [(STANDALONE, "test_a_server_that_moves_is_let_go_where_it_was")],
    "Instances that move": [
        (FAULTS, "test_an_instance_that_is_migrated_live_takes_its_allocation_along"),
        (TRUST, "test_without_nova_a_claim_passes_on_when_the_instance_has_left"),
        (TRUST, "test_without_nova_a_claim_passes_on_when_its_host_is_unresponsive_for_long"),
    ],
    "The clocks": [
        (DATABASES, "test_what_a_host_says_late_covers_nothing_newer"),
        (DATABASES, "test_a_lease_that_somebody_took_by_a_clock_that_is_ahead_is_over"),
    ],
    "Backup": [
        (STANDALONE, "test_after_an_older_copy_of_the_database_was_restored_its_word_counts")
    ],
}


def option(group, name):
    for section, options in opts.own_opts():
        if section == group:
            return next(each.default for each in options if each.dest == name)
    raise LookupError(name)


#: Words of the page before a number, and what that is in the code.
NUMBERS = [
    ("``[executor] pull_interval`` (", option("executor", "pull_interval")),
    ("the lease ends ", delivery._LEASE_S),
    ("which checks each ", delivery._RENEW_S),
    ("conductors retry after 1, 2, 4, … ", delivery._RETRY_MAX_S),
    ("gets no allocation, and asks again after 1, 2, 4, … ", conductor_sync._RETRY_MAX_S),
    ("executors retry after ", conductor_sync._RETRY_MAX_S),
    ("not wait for it: after some ", connecting.SERVICE.answer_s),
    ("a request gets 503 ``busy`` after ", server_threads.PATIENCE_S),
    ("if it has no answer after ", health._LIMIT_S),
    ("a slow statement may take up to ", connecting.SERVICE.statement_s),
    ("No request waits for a lock for longer than ", connecting.SERVICE.lock_s),
    ("nor retries for longer than some ", database._BUSY_S),
    ("of a frozen service or a lost host after ", connecting._IDLE_S),
    ("``[conductor] host_timeout`` and ", client._MARGIN_S),
    ("the conductor with the lease searches each ", delivery._SEARCH_S),
]


def rows():
    """The first cells of the table of what may be away."""
    table = PAGE.partition("When something is unavailable\n")[2].partition(".. _databases:")[0]
    lines = [line for line in table.splitlines() if line and not line.startswith(("=", " "))]
    return [line[:29].strip() for line in lines[1:]]


def terms():
    """The terms of the lists of definitions."""
    lists = PAGE.partition(".. _databases:")[2].partition("Instances that move\n")[0]
    return re.findall(r"^(\w[^\n]*)\n    \w", lists, re.MULTILINE)


def test_each_part_of_the_page_is_held_by_tests():
    leads = re.findall(r"^\*\*(.+?)\*\*", PAGE, re.MULTILINE)
    sections = ["Instances that move", "The clocks", "Backup"]
    assert [*leads, *rows(), *terms(), *sections] == list(PROMISES)


@pytest.mark.parametrize("part", PROMISES)
def test_each_named_test_of_a_part_exists(part):
    for path, name in PROMISES[part]:
        assert re.search(rf"^ *def {name}\(", (TESTS / path).read_text(), re.MULTILINE), name


@pytest.mark.parametrize(("words", "value"), NUMBERS, ids=lambda each: str(each).strip())
def test_a_number_of_the_page_is_that_of_the_code(words, value):
    # Cells of tables have lines of their own.
    cells = re.sub(r"\s+", " ", PAGE)
    columns = " ".join(line[60:].strip() for line in PAGE.splitlines())
    found = re.search(re.escape(words) + r"([0-9.]+) s", cells) or re.search(
        re.escape(words) + r"([0-9.]+) s", columns
    )
    assert found is not None
    assert float(found[1]) == value


def test_a_late_report_of_a_host_counts_after_five_minutes():
    assert "believed after five minutes" in PAGE
    assert reports.LATE_S == 300


def test_without_nova_an_unresponsive_host_keeps_an_instance_for_ten_minutes():
    assert "sent no heartbeat for ten minutes" in " ".join(PAGE.split())
    assert claims.LAPSE_S == 600
