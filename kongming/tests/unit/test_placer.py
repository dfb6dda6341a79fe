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


"""Placing one guest: what it may have, what it has instead, and what is reported about it."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from kongming import exception
from kongming.allocation.allocation import Allocation, Windowed
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import EMULATOR, SHARES, vcpu
from kongming.allocation.windows import Window
from kongming.executor.placing.claims import Claims
from kongming.executor.placing.placer import Placer
from kongming.host.grant import Grant
from kongming.host.rules import NumaGuests, Overlap, Rules
from kongming.hypervisor.reading import Part, Reading
from kongming.tests import hosts
from kongming.tests.guests import ALL, HALF, Guest, occupant, pin, request

UUID = "5a6e9b1e-0000-4000-8000-000000000001"
OTHER = "5a6e9b1e-0000-4000-8000-000000000002"
#: CPU n and n + 4 are the threads of one core.
TOPOLOGY = hosts.host(1, 4, 2)


class Executor:
    """A placer with its rules and its host.

    :ivar looks: how often the other guests, and the topology, were looked at.
    """

    def __init__(self, **rules):
        self.rules = Rules(**rules)
        self.topology = TOPOLOGY
        self.occupants = []
        self.moves = {}
        self.looks = []
        claims = Claims(
            lambda: self._looked("guests", self.occupants),
            lambda other: self.moves.get(other.instance_uuid),
        )
        self.placer = Placer(
            lambda: self.rules, claims, lambda: self._looked("topology", self.topology)
        )

    def look(self, guest, accepted=False, **requested):
        return self.placer.plan(request(**requested), guest, accepted=accepted)

    def place(self, guest, new=True, **requested):
        prospect = self.look(guest, accepted=not new, **requested)
        return self.placer.place(UUID, prospect, guest, new=new)

    def warnings(self, guest, **requested):
        return self.placer.warnings(UUID, self.look(guest, **requested))

    def _looked(self, at, found):
        self.looks.append(at)
        return found


#: What Nova gave a guest with a NUMA topology: its vCPUs float over a cell.
GRANT = Grant({each: CpuSet(range(4, 8)) for each in (vcpu(0), vcpu(1), EMULATOR)}, {0: 0, 1: 0})

#: What it gave another one, whose vCPUs have dedicated CPUs.
DEDICATED = Grant({vcpu(0): CpuSet([4]), vcpu(1): CpuSet([5]), EMULATOR: CpuSet([4, 5])})


class TestGrant:
    def test_a_guest_is_placed_within_its_grant_and_returns_to_it(self):
        executor, guest = Executor(), Guest(grant=GRANT)
        executor.place(guest, vcpu_pinning="0:4;1:5-6")
        assert guest.configured[vcpu(0)] == {4}
        assert guest.configured[vcpu(1)] == {5, 6}
        executor.place(guest, new=False)
        assert {what: guest.configured[what] for what in GRANT.cpus} == GRANT.cpus
        assert guest.definition().baseline == {}

    def test_a_request_outside_of_the_grant_has_no_effect(self):
        executor, guest = Executor(), Guest(grant=GRANT)
        with pytest.raises(exception.OutsideGrant, match="vCPU 1 the CPUs 4-7"):
            executor.look(guest, vcpu_pinning="0:4;1:3")
        assert guest.done == []

    def test_a_request_that_a_new_grant_has_no_room_for_is_refused_as_a_whole(self):
        executor = Executor()
        narrower = Grant({**GRANT.cpus, vcpu(1): CpuSet([6, 7])}, GRANT.cells)
        guest = Guest(grant=narrower)
        prospect = executor.look(guest, accepted=True, vcpu_pinning="0:4;1:5", cpu_shares="5")
        assert reasons(prospect) == ["outside_grant"]
        assert [change.target for change in prospect.plan.changes()] == [SHARES]

    def test_pins_that_return_to_a_newer_grant_go_to_that_one(self):
        executor, guest = Executor(), Guest(grant=GRANT)
        executor.place(guest, vcpu_pinning="0:4")
        newer = Grant({**GRANT.cpus, vcpu(0): CpuSet([6, 7])}, GRANT.cells)
        guest.regrant(newer)
        assert executor.look(guest).plan.goals == {vcpu(0): {6, 7}}

    def test_a_vcpu_that_has_all_of_its_grant_blocks_no_guest(self):
        executor = Executor(overlap=Overlap.REFUSE)
        guest = Guest(grant=GRANT)
        assert executor.look(guest, emulator_pinning="4").move(UUID).pins == {}
        assert executor.look(guest, vcpu_pinning="0:4").move(UUID).pins == {0: {4}}
        whole = executor.look(guest, vcpu_pinning="0:4-7").move(UUID)
        assert (whole.cpus, whole.pins) == (CpuSet(), {})

    def test_numa_guests_can_be_left_to_nova(self):
        executor = Executor(numa_guests=NumaGuests.REFUSE)
        with pytest.raises(exception.NovaOwned, match="numa_guests"):
            executor.look(Guest(grant=GRANT), vcpu_pinning="0:4")

    def test_dedicated_cpus_are_permuted_whole_or_not_at_all(self):
        """While a CPU is offline: two vCPUs would share the other one."""
        executor, guest = Executor(), Guest(grant=DEDICATED)
        executor.place(guest, vcpu_pinning="0:5;1:4", emulator_pinning="4")
        swapped = {what: guest.configured[what] for what in DEDICATED.cpus}
        guest.host = replace(guest.host, online=CpuSet(ALL - {5}))
        done = executor.place(guest, new=False, cpu_shares="5")
        assert done.plan.unusable == {vcpu(1): {5}, EMULATOR: {5}}
        assert {what: guest.configured[what] for what in swapped} == swapped
        assert guest.configured[SHARES] == 5
        # What was not returned is remembered until it can be.
        assert guest.definition().baseline.keys() == {*swapped, SHARES}
        guest.host = replace(guest.host, online=ALL)
        executor.place(guest, new=False)
        assert {what: guest.configured[what] for what in DEDICATED.cpus} == DEDICATED.cpus
        assert guest.definition().baseline == {}

    def test_an_accepted_permutation_waits_for_all_of_its_cpus(self):
        executor, guest = Executor(), Guest(grant=DEDICATED)
        guest.host = replace(guest.host, online=CpuSet(ALL - {4}))
        done = executor.place(guest, new=False, vcpu_pinning="0:5;1:4")
        assert done.plan.unusable == {vcpu(1): {4}}
        assert guest.done == []
        guest.host = replace(guest.host, online=ALL)
        executor.place(guest, new=False, vcpu_pinning="0:5;1:4")
        assert [guest.configured[vcpu(number)] for number in (0, 1)] == [{5}, {4}]

    def test_a_floating_vcpu_waits_for_its_cpus_alone(self):
        executor, guest = Executor(), Guest(grant=GRANT)
        guest.host = replace(guest.host, online=CpuSet(ALL - {4}))
        executor.place(guest, new=False, vcpu_pinning="0:4;1:5")
        assert [guest.configured[vcpu(number)] for number in (0, 1)] == [set(range(4, 8)), {5}]

    def test_a_placement_that_the_rules_no_longer_permit_is_released_as_a_whole(self):
        """A window ended meanwhile: what it had beyond that would go back by itself."""
        executor, guest = Executor(), Guest(grant=DEDICATED)
        executor.place(guest, vcpu_pinning="0:5;1:4")
        executor.rules = Rules(reserved_cpus=CpuSet([5]))
        prospect = executor.look(guest, accepted=True, vcpu_pinning="0:5", cpu_shares="5")
        assert reasons(prospect) == ["dedicated_cpus"]
        assert [change.target for change in prospect.plan.changes()] == [SHARES]

    def test_a_target_of_a_plain_guest_that_the_rules_no_longer_permit_is_released_by_itself(self):
        executor, guest = Executor(), Guest()
        executor.place(guest, vcpu_pinning="0:5;1:4")
        executor.rules = Rules(reserved_cpus=CpuSet([5]))
        prospect = executor.look(guest, accepted=True, vcpu_pinning="0:5")
        assert [change.target for change in prospect.plan.changes()] == [vcpu(1)]


def reasons(prospect):
    return [each.reason for each in prospect.shortfalls]


class TestLook:
    def test_a_new_request_is_permitted_whole_or_refused(self):
        executor = Executor(reserved_cpus=CpuSet([1]))
        prospect = executor.look(Guest(), vcpu_pinning="0:2;1:3", cpu_shares="5")
        assert prospect.desired == {vcpu(0): CpuSet([2]), vcpu(1): CpuSet([3]), SHARES: 5}
        assert [change.target for change in prospect.plan.changes()] == [vcpu(0), vcpu(1), SHARES]
        assert not prospect.shortfalls
        with pytest.raises(exception.CpuReserved):
            executor.look(Guest(), vcpu_pinning="0:1;1:3", cpu_shares="5")
        with pytest.raises(exception.VcpuUnknown):
            executor.look(Guest(), vcpu_pinning="0:2;2:3")
        with pytest.raises(exception.CpuOffline, match="CPU 4"):
            executor.look(Guest(HALF), vcpu_pinning="3-4")

    def test_the_permitted_part_of_an_accepted_request_stays(self):
        executor = Executor(reserved_cpus=CpuSet([1]))
        guest = Guest(HALF, pins=pin(1, 1))
        prospect = executor.look(
            guest, accepted=True, vcpu_pinning="0:3-4;1:1;2:3", cpu_shares="5"
        )
        assert prospect.desired == {vcpu(0): CpuSet([3, 4]), SHARES: 5}
        assert reasons(prospect) == ["cpu_reserved", "vcpu_unknown"]
        assert prospect.plan.unusable == {vcpu(0): CpuSet([4])}
        assert [change.target for change in prospect.plan.changes()] == [vcpu(0), SHARES]

    def test_a_placement_that_the_rules_no_longer_permit_stays_unchanged(self):
        executor, guest = Executor(), Guest()
        executor.place(guest, vcpu_pinning="0:1;1:2")
        executor.rules = Rules(reserved_cpus=CpuSet([1]))
        prospect = executor.look(guest, accepted=True, vcpu_pinning="0:1;1:2")
        assert reasons(prospect) == ["cpu_reserved"]
        assert not prospect.plan
        assert executor.look(guest).plan.goals == {vcpu(0): ALL, vcpu(1): ALL}

    def test_an_unmanaged_guest_may_only_return_to_its_baseline(self):
        executor = Executor()
        executor.place(guest := Guest(), vcpu_pinning="1")
        executor.rules = Rules(allowed_projects=frozenset(["another"]))
        for accepted in (True, False):
            with pytest.raises(exception.ProjectNotAllowed):
                executor.look(guest, accepted, vcpu_pinning="1")
            assert executor.look(guest, accepted).plan.goals == {vcpu(0): ALL, vcpu(1): ALL}

    def test_a_target_without_a_control_group_is_named_and_the_rest_is_placed(self):
        guest = Guest()
        requested = {
            "vcpu_pinning": "0:2",
            "cpu_shares": "5",
            "vcpu_quota": "50%",
            "numa_nodes": "1",
        }
        assert not Executor().look(guest, **requested).shortfalls
        guest.cpu_time, guest.has_cpuset_controller = {}, False
        prospect = Executor().look(guest, **requested)
        assert prospect.desired == {vcpu(0): CpuSet([2])}
        expected = ["shares_unsupported", "quota_unsupported", "memory_unsupported"]
        assert reasons(prospect) == expected
        assert "CPU shares can't be set: libvirt has no control group with the" in str(
            prospect.shortfalls[0]
        )
        assert "controller cpuset for" in str(prospect.shortfalls[2])
        assert not Executor().look(guest, vcpu_pinning="0:2").shortfalls

    @pytest.mark.parametrize(
        ("pins", "shown", "former"),
        [
            ("", Reading.of(CpuSet([2, 3])), CpuSet([2, 3])),
            ("", Reading.of(CpuSet(range(7))), CpuSet(range(7))),
            ("", Reading.of(ALL), ALL),
            ("", Reading.of(CpuSet([2, 3]), by_kernel=False), ALL),
            ("", Reading((Part(CpuSet([2]), "a"), Part(CpuSet([3]), "b"))), ALL),
            (pin(0, "0-5"), Reading.of(CpuSet([2, 3])), CpuSet(range(6))),
        ],
    )
    def test_a_guest_returns_to_where_it_ran_if_libvirt_has_no_configuration(
        self, pins, shown, former
    ):
        prospect = Executor().look(Guest(pins=pins, v0=shown), vcpu_pinning="0:1")
        assert [change.former for change in prospect.plan.changes()] == [former]
        assert prospect.state.configured[vcpu(0)] == (CpuSet(range(6)) if pins else ALL)

    def test_a_guest_on_all_online_cpus_is_not_confined(self):
        for cpus in (range(4), range(6)):
            guest = Guest(HALF, v0=Reading.of(CpuSet(cpus)))
            (change,) = Executor().look(guest, vcpu_pinning="0:1").plan.changes()
            assert change.former == ALL

    def test_a_weight_narrower_than_no_weight_is_no_cpuset(self):
        (change,) = Executor().look(Guest(), cpu_shares="5").plan.changes()
        assert (change.target, change.former) == (SHARES, 1024)

    def test_a_difference_is_reported_as_configured_or_else_as_observed(self):
        parts = (Part(CpuSet([2]), "700"), Part(CpuSet([4]), "701"))
        guest = Guest(pins=pin(0, 2) + pin(1, 5), v0=Reading(parts))
        prospect = Executor().look(guest, vcpu_pinning="0:2;1:3")
        assert (
            prospect.describe_drift()
            == "vCPU pins 0: found 4 (701), desired 2, 1: found 5, desired 3"
        )


class TestMove:
    def test_a_move_has_the_request_and_all_resulting_pins_of_the_guest(self):
        move = (
            Executor()
            .look(Guest(pins=pin(0, 2)), vcpu_pinning="1:3", emulator_pinning="4")
            .move(UUID)
        )
        assert move.instance_uuid == UUID
        assert move.cpus == {3, 4}
        assert move.pins == {0: {2}, 1: {3}}

    def test_a_pin_to_all_online_cpus_is_no_pin(self):
        move = Executor().look(Guest(HALF, pins=pin(0, "0-3")), vcpu_pinning="1:0-2").move(UUID)
        assert move.pins == {1: {0, 1, 2}}


class TestWindows:
    def allocation(self, cpus):
        night = Window("night", "0 22 * * *", 3600)
        return Allocation(windows=(Windowed(night, request(vcpu_pinning=cpus)),))

    def test_a_window_is_refused_now_if_it_would_be_refused_when_it_begins(self):
        executor = Executor(reserved_cpus=CpuSet([1]))
        executor.placer.check_windows(self.allocation("2,7"), Guest(HALF))
        with pytest.raises(exception.CpuReserved, match="in window night: CPU 1 is reserved"):
            executor.placer.check_windows(self.allocation("1"), Guest())
        noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
        assert not executor.placer.plan(
            self.allocation("1").at(noon), Guest(), accepted=False
        ).plan

    def test_a_request_without_windows_costs_no_reading_of_the_guest(self):
        guest = Guest()
        Executor().placer.check_windows(request(vcpu_pinning="1"), guest)
        assert guest.looks == 0


class TestPlace:
    def test_a_guest_that_has_its_whole_request_is_left_alone(self):
        executor = Executor()
        guest = Guest(pins=pin(0, 2))
        guest.busy = True
        placed = executor.place(guest, vcpu_pinning="0:2")
        assert (guest.done, placed.note, placed.moving) == ([], "", frozenset())
        assert not executor.looks

    def test_a_guest_that_a_job_keeps_is_waited_for(self):
        executor, guest = Executor(), Guest()
        guest.busy = True
        with pytest.raises(exception.GuestBusy):
            executor.place(guest, vcpu_pinning="0:2")
        assert not executor.looks

    def test_additional_cpus_are_checked_against_other_guests_and_former_cpus_are_not(
        self,
    ):
        executor, guest = Executor(overlap=Overlap.REFUSE), Guest()
        executor.occupants = [occupant(OTHER, 2)]
        with pytest.raises(exception.Overlap):
            executor.place(guest, vcpu_pinning="0:2")
        assert guest.done == []
        placed = executor.place(guest, new=False, vcpu_pinning="0:2")
        assert (guest.done, placed.note) == ([vcpu(0)], "")
        assert executor.looks == ["topology", "guests"]

    def test_a_released_guest_is_checked_against_no_other(self):
        executor = Executor(overlap=Overlap.REFUSE)
        executor.place(guest := Guest(), vcpu_pinning="0:2")
        executor.looks.clear()
        executor.placer.place(UUID, executor.look(guest), guest, new=True)
        assert guest.done == [vcpu(0), vcpu(0)]
        assert not executor.looks

    def test_all_warnings_are_recorded(self):
        executor, guest = Executor(), Guest()
        executor.occupants = [occupant(OTHER, 2)]
        executor.topology = isolated(2, 3)
        note = executor.place(guest, vcpu_pinning="0-1:2-3", numa_nodes="0").note
        (overlap, rest), memory = note.split("; ", 1), note.split("; ")[-1]
        assert overlap.startswith("other guests are pinned to the same CPUs: CPU 2")
        assert rest.startswith("vCPU 0-1 on isolated CPUs (2-3)")
        assert memory == "30 KiB of memory on node 0"

    def test_guests_that_have_to_move_are_reported(self):
        executor = Executor(overlap=Overlap.REFUSE)
        executor.occupants = [occupant(OTHER, 2)]
        other = executor.look(Guest(pins=pin(0, 2)), vcpu_pinning="0:6").move(OTHER)
        executor.moves[OTHER] = other
        executor.rules = replace(executor.rules, smt=Overlap.ALLOW)
        assert executor.place(Guest(), vcpu_pinning="0:2").moving == {OTHER}

    @pytest.mark.parametrize(
        ("memory", "note"),
        [
            ({0: 30, 1: 7}, "7 KiB of memory on node 1, 30 KiB stayed on node 0"),
            ({0: 0, 1: 7}, "7 KiB of memory on node 1"),
            ({}, "0 KiB of memory on node 1"),
            (None, "the memory can't be counted (that needs CAP_SYS_PTRACE)"),
        ],
    )
    def test_memory_that_was_moved_is_counted(self, memory, note):
        guest = Guest()
        guest.memory = memory
        assert Executor().place(guest, numa_nodes="1").note == note
        assert Executor().place(guest, numa_nodes="1", cpu_shares="5").note == ""


class TestWarnings:
    def test_a_placement_is_warned_about_before_it_is_carried_out(self):
        executor, guest = Executor(), Guest()
        executor.occupants = [occupant(OTHER, 2)]
        executor.topology = isolated(2, 3)
        overlap, unbalanced = executor.warnings(guest, vcpu_pinning="2-3")
        assert "other guests are pinned to the same CPUs: CPU 2" in overlap
        assert "the kernel does not spread threads over isolated CPUs" in unbalanced
        assert guest.done == []
        executor.topology = TOPOLOGY
        assert executor.warnings(guest, vcpu_pinning="3") == []

    @pytest.mark.parametrize(
        ("overlap", "smt", "looks"),
        [
            (Overlap.ALLOW, Overlap.ALLOW, []),
            (Overlap.WARN, Overlap.ALLOW, ["guests"]),
            (Overlap.ALLOW, Overlap.WARN, ["topology", "guests"]),
            (Overlap.WARN, Overlap.WARN, ["topology", "guests"]),
        ],
    )
    def test_only_values_that_the_rules_need_are_read(self, overlap, smt, looks):
        executor = Executor(overlap=overlap, smt=smt)
        executor.occupants = [occupant(OTHER, 6)]
        warnings = executor.warnings(Guest(), vcpu_pinning="2")
        assert executor.looks == looks
        assert ["same cores" in each for each in warnings] == [True] * (smt is Overlap.WARN)
        executor.looks.clear()
        assert executor.warnings(Guest(), cpu_shares="5") == []
        assert not executor.looks


def isolated(*cpus):
    cell = TOPOLOGY.cells[0]
    there = tuple(replace(cpu, isolated=cpu.id in cpus) for cpu in cell.cpus)
    return replace(TOPOLOGY, cells=(replace(cell, cpus=there),))
