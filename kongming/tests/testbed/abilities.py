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

"""What this machine lets the testbed do: not every one is the testbed's to rearrange.

    python -m kongming.tests.testbed.abilities

prints in one line which tests a plain container leaves out, and nothing on a machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
import functools

from kongming.tests.testbed import cgroup, namespace

#: Parts of tools/test that need mounts.
PARTS = ("nova", "tempest", "soak", "demos", "systemd", "packages", "--on")
#: Fixtures of the integration tests that do: each is a libvirtd beside the first one.
FIXTURES = frozenset({"bare", "hooked", "second_libvirtd"})
#: Modules of the integration tests that do, or need what is refused together with mounts: other
#: namespaces, control groups, the threads of guests of another user. Those of their tests that
#: do; none: all of them.
MODULES: Mapping[str, frozenset[str]] = {
    "configuration": frozenset({"process_1_of_a_container_receives_signals"}),
    "controllers": frozenset(),
    "demo": frozenset(
        {
            "a_plain_container_can_not_make_a_debian_root_and_says_why_in_one_line",
            "a_plain_container_is_shown_the_same_except_for_one_line",
            "tests_that_need_mounts_are_left_out_in_a_plain_container",
        }
    ),
    "faults": frozenset(),
    "grant": frozenset(),
    "guides": frozenset(),
    "host_names": frozenset(),
    "hosts": frozenset(),
    "hung": frozenset({"a_guest_that_a_job_keeps_is_placed_when_the_job_has_ended"}),
    "installation_guide": frozenset(),
    "keeping": frozenset(
        {
            "a_foreign_pin_is_corrected_at_once_and_logged",
            "a_rule_that_forbids_one_part_leaves_it_unchanged_and_keeps_the_others",
            "a_suspended_guest_is_saved_without_its_placement",
            "a_thread_that_was_moved_behind_libvirts_back_is_found_by_the_check",
            "all_possible_values_are_applied_at_once_and_released",
            "an_iothread_that_is_removed_lifts_no_other_placement",
            "changes_by_kongming_are_not_taken_for_drift",
            "memory_that_was_bound_for_good_is_not_touched",
            "no_limit_can_be_requested",
            "one_part_that_fails_undoes_all_parts",
        }
    ),
    "manage_allocation": frozenset(
        {
            "a_list_of_all_allocations_and_a_text_exist_for_each_format",
            "a_plan_shows_the_steps_or_the_refusal_and_has_no_effect",
            "an_operator_sets_shows_and_unsets_beside_the_service",
            "reconcile_finds_an_unannounced_guest",
        }
    ),
    "migration": frozenset(
        {
            "a_guest_does_not_stay_on_reserved_cpus_of_the_destination",
            "a_guest_is_placed_as_requested_on_the_destination_and_returns_to_its_cpus_there",
        }
    ),
    "notification_handler": frozenset(
        {"after_a_restart_of_libvirtd_all_desired_allocations_are_checked"}
    ),
    "polkit": frozenset(),
    "reach": frozenset(),
    "resume": frozenset(),
    "service_user": frozenset(),
    "soak": frozenset(),
    "status": frozenset(),
    "store_faults": frozenset({"a_file_that_was_made_read_only", "the_disk_is_full"}),
    "testbed": frozenset(),
    "where": frozenset(
        {
            "a_definition_that_brings_an_old_pin_back_is_no_request",
            "a_live_migrated_guest_is_forgotten_without_an_event",
            "a_release_cleans_the_definition_too",
            "an_edit_from_an_api_node_whose_clock_is_behind_is_carried_out",
        }
    ),
    "whole": frozenset(
        {
            "a_narrower_former_set_is_the_baseline",
            "a_quota_that_any_vcpu_has_lost_is_set_again",
            "a_shield_above_the_guests_is_not_widened",
            "an_emulator_thread_on_other_cpus_is_moved",
            "going_back_leaves_no_thread_behind",
        }
    ),
}


@dataclass(frozen=True)
class Abilities:
    """What a machine refuses, each with the reason; None: it lets us.

    :ivar no_mounts: mounts in a namespace of their own
    :ivar no_control_groups: control groups with the controllers that guests need
    """

    no_mounts: str | None = None
    no_control_groups: str | None = None


@functools.cache
def abilities() -> Abilities:
    """Try what this machine lets us do."""
    no_mounts = namespace.refusal()
    # A libvirtd makes control groups of its own only below those that a namespace shows it.
    return Abilities(no_mounts, cgroup.refusal() or no_mounts)


def left_out(found: Abilities, *, embedded: bool, nodes: int = 1) -> str | None:
    """Return, in one line, what can't be shown of Kongming and why; None: all can be.

    :param embedded: whether guests run in libvirt's embedded driver
    :param nodes: how many NUMA nodes have memory
    """
    if found.no_control_groups is not None:
        return f"CPU time and memory moves: no control groups here ({found.no_control_groups})"
    if embedded:
        return "CPU time and memory moves: they need control groups, as --services has them"
    if nodes < 2:
        return "memory moves: this machine has a single NUMA node"
    return None


def needs_mounts(module: str, test: str, fixtures: Iterable[str]) -> bool:
    """Return whether a test of the integration tests can't be run where mounts are refused."""
    if not FIXTURES.isdisjoint(fixtures):
        return True
    tests = MODULES.get(module.removeprefix("test_"))
    return tests is not None and (not tests or test.removeprefix("test_") in tests)


def limits(found: Abilities) -> str | None:
    """Return, in one line, which tests this machine does not run and why; None: it runs all."""
    if found.no_mounts is None:
        return None
    modules = [name for name, tests in MODULES.items() if not tests]
    return (
        f"no mounts are allowed here ({found.no_mounts}): {', '.join(PARTS)} can't be run; of "
        f"integration and slow, {', '.join(modules)} and single tests of others are left out"
    )


if __name__ == "__main__":
    if line := limits(abilities()):
        print(line)
