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
DATABASE_FAULTS = "integration/test_database_faults.py"
DATABASES = "integration/test_databases.py"
GALERA = "integration/test_galera.py"
TOKENS = "functional/test_tokens.py"
TRUST = "functional/test_trust.py"

#: The topics of the page, and the tests of its statements.
PROMISES = {
    "Level, not edge.": [
        (STANDALONE, "test_a_push_that_got_lost_is_made_up_for_by_the_pull"),
        (STANDALONE, "test_a_guest_that_starts_is_placed_before_the_next_pull"),
        (WHOLE, "test_a_host_that_was_down_requests_missed_changes"),
    ],
    "The host is independent.": [
        (FAULTS, "test_a_window_goes_on_without_the_control_plane"),
        ("functional/test_service.py", "test_desired_allocations_are_applied_after_a_restart"),
    ],
    "Numbers tell old from new.": [
        (STANDALONE, "test_an_older_push_that_comes_late_has_no_effect"),
        ("unit/test_outbox.py", "test_the_later_generation_of_two_pushes_is_sent"),
    ],
    "one conductor ends": [(WHOLE, "test_a_killed_conductor_loses_no_allocation")],
    "the conductor with the lease": [
        (STANDALONE, "test_another_conductor_takes_over_when_the_one_that_queries_nova_ends"),
        (DATABASES, "test_a_lease_goes_by_the_databases_clock"),
    ],
    "all conductors": [
        (STANDALONE, "test_a_request_made_while_the_executor_was_down_is_pulled"),
        (STANDALONE, "test_an_executor_requests_again_until_an_answer_can_be_read"),
        ("functional/test_api.py", "test_an_unavailable_host_is_an_error"),
    ],
    "the database": [
        ("functional/test_api.py", "test_a_database_that_is_away"),
        (DATABASES, "test_a_killed_server_is_used_again_when_it_is_back"),
        (FAULTS, "test_the_database_may_be_unavailable_for_a_while"),
    ],
    "RabbitMQ, or its alarm is on": [
        ("functional/test_api.py", "test_a_missing_conductor_is_an_error"),
        ("integration/test_alarms.py", "test_a_broker_that_is_full_stops_neither_api_nor_host"),
        (WHOLE, "test_a_restarted_broker_loses_no_allocation"),
    ],
    "Nova's API": [
        (STANDALONE, "test_without_nova_all_allocations_stay_unchanged"),
        (TRUST, "test_without_nova_no_host_gets_an_instance_that_it_did_not_have"),
    ],
    "Keystone": [
        ("integration/test_identity.py", "test_keystone_is_away"),
        (TOKENS, "test_keystone_is_waited_for_within_a_limit_and_logged_once"),
        (TOKENS, "test_an_unresponsive_keystone_stops_no_server"),
    ],
    "memcached": [
        (TOKENS, "test_an_unresponsive_server_is_left_alone_for_a_while_and_logged_once")
    ],
    "an executor": [
        (WHOLE, "test_hosts_send_their_snapshot_and_become_unresponsive"),
        ("unit/test_db_database.py", "test_a_host_is_unresponsive_after_three_intervals"),
    ],
    "libvirt of a host": [
        ("unit/test_conductor_sync.py", "test_a_snapshot_that_is_unavailable_is_not_sent")
    ],
    "A database that is unresponsive": [
        (DATABASE_FAULTS, "test_an_api_with_an_unresponsive_database_answers_every_request"),
        (DATABASE_FAULTS, "test_no_request_waits_for_the_greeting_of_a_server"),
        (DATABASE_FAULTS, "test_no_request_waits_for_a_missing_answer"),
        (DATABASE_FAULTS, "test_a_slow_statement_is_waited_for"),
    ],
    "A database that is slow for a moment": [
        ("unit/test_db_liveness.py", "test_a_request_that_waits_on_another_thread_keeps_waiting"),
        ("unit/test_db_liveness.py", "test_a_moment_without_an_answer_is_waited_for"),
    ],
    "A switch-over": [
        (DATABASE_FAULTS, "test_after_a_switchover_the_old_primary_is_left_at_once"),
        (
            DATABASE_FAULTS,
            "test_a_primary_that_is_fenced_in_a_transaction_is_left_and_the_work_repeated_on_the_other",
        ),
    ],
    "Locks": [
        (DATABASE_FAULTS, "test_a_request_that_waits_for_a_lock_reports_the_lock"),
        (
            DATABASE_FAULTS,
            "test_a_request_that_waits_for_locked_rows_does_not_take_the_last_thread",
        ),
        (DATABASE_FAULTS, "test_locks_of_a_frozen_client_are_ended"),
    ],
    "Galera": [
        (GALERA, "test_one_of_many_concurrent_changes_at_both_nodes_succeeds"),
        (
            GALERA,
            "test_an_isolated_node_reports_it_and_serves_again_when_the_others_are_back",
        ),
        (DATABASE_FAULTS, "test_a_session_waits_for_other_nodes_if_configured"),
    ],
    "Settings of the server": [
        (DATABASES, "test_another_default_isolation_of_a_server_causes_no_refusal"),
        (DATABASES, "test_all_characters_are_kept_with_every_character_set"),
        (DATABASE_FAULTS, "test_a_database_that_lacks_signs_is_refused"),
    ],
    "API": [(FAULTS, "test_an_api_that_is_killed_right_after_a_request_loses_no_request")],
    "Conductor": [(FAULTS, "test_executor_and_conductor_may_be_killed_at_any_moment")],
    "Executor": [(FAULTS, "test_executor_and_conductor_may_be_killed_at_any_moment")],
    "Host": [(STANDALONE, "test_a_server_that_moves_is_released_on_its_former_host")],
    "Instances that move": [
        (FAULTS, "test_a_live_migrated_instance_keeps_its_allocation"),
        (TRUST, "test_without_nova_a_claim_passes_on_when_the_instance_has_left"),
        (TRUST, "test_without_nova_a_claim_passes_on_when_its_host_is_unresponsive_for_long"),
    ],
    "The clocks": [
        (DATABASES, "test_a_late_report_replaces_no_newer_one"),
        (DATABASES, "test_a_lease_from_a_clock_that_is_ahead_expires"),
    ],
    "Backup": [(STANDALONE, "test_a_restored_older_database_counts")],
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
    """Return the first cells of the table of what may be unavailable."""
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
