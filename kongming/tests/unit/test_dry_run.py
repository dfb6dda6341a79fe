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

"""The dry run: what would be done is reported, and nothing is done."""

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import pytest

from kongming import exception
from kongming.allocation.allocation import Allocation, Windowed
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.windows import Window
from kongming.executor.placing import dry_run
from kongming.executor.placing.claims import Claims
from kongming.executor.placing.placer import Placer
from kongming.host.rules import Overlap, Rules
from kongming.hypervisor.host import Host
from kongming.tests import hosts
from kongming.tests.cost import lines
from kongming.tests.databases import instance
from kongming.tests.guests import HALF, HOST, Guest, occupant, pin, request

UUID = "5a6e9b1e-0000-4000-8000-000000000001"
OTHER = "5a6e9b1e-0000-4000-8000-000000000002"


def look(guest, allocation, *, accepted=False, **rules):
    known = {"accepted": True} if accepted else {}
    claims = Claims(lambda: [occupant(OTHER, 3)])
    placer = Placer(lambda: Rules(**rules), claims, lambda: hosts.host(1, 4, 2))
    found = dry_run.run(placer, guest, UUID, allocation, **known)
    assert guest.done == []
    return found.to_json()


def test_the_values_that_would_be_set_are_reported_with_their_warnings():
    found = look(Guest(), request(vcpu_pinning="1:3", cpu_shares="5"))
    assert found["steps"] == [
        {"target": "vCPU 1", "from": "0-7", "to": "3", "grant": ""},
        {"target": "CPU shares", "from": "1024", "to": "5", "grant": ""},
    ]
    assert [each.partition(":")[0] for each in found["warnings"]] == [
        "other guests are pinned to the same CPUs"
    ]


def test_an_impossible_allocation_is_waiting_if_it_was_in_force_and_refused_otherwise():
    guest, requested = Guest(HALF, pins=pin(0, 3)), request(vcpu_pinning="0:1-2;1:2,5;2:2")
    found = look(guest, requested, accepted=True, reserved_cpus=CpuSet([1]))
    unusable, reserved, lacking = found["warnings"]
    assert unusable == "not available now, set later: CPU 5 of vCPU 1"
    assert "CPU 1 is reserved" in reserved
    assert "vCPU 2 does not exist" in lacking
    assert [step["target"] for step in found["steps"]] == ["vCPU 1"]
    with pytest.raises(exception.Refused):
        look(guest, requested)


@pytest.mark.parametrize("begun", [True, False])
def test_windows_are_judged_and_the_one_in_force_is_reported(begun):
    start = datetime.now(UTC) + timedelta(hours=-1 if begun else 1)
    window = Window("w", f"{start.minute} {start.hour} * * *", 2 * 3600)

    def during(cpus):
        return Allocation(cpu_shares=7, windows=(Windowed(window, request(vcpu_pinning=cpus)),))

    targets = [step["target"] for step in look(Guest(), during("0:1"))["steps"]]
    assert targets == ["vCPU 0", "CPU shares"][not begun :]
    with pytest.raises(exception.CpuUnknown, match="in window w"):
        look(Guest(), during("9"))
    if not begun:
        assert look(Guest(), during("9"), accepted=True)["steps"]


THIRD = "5a6e9b1e-0000-4000-8000-000000000003"
ABSENT = "5a6e9b1e-0000-4000-8000-000000000004"
_CPUS = CpuSet(range(32))
WIDE = Host(_CPUS, _CPUS, CpuSet([0]), cgroup=2)


def look_at_all(requested, there, host=HOST, **rules):
    """Return the outcome of each instance, of guests that have all vCPUs on one CPU each."""
    guests = {
        uuid: Guest(host, pins="".join(pin(vcpu, cpu) for vcpu in (0, 1)))
        for uuid, cpu in there.items()
    }
    occupants = [occupant(uuid, cpu) for uuid, cpu in there.items()]
    claims = Claims(lambda: occupants)
    rules = {"overlap": Overlap.REFUSE} | rules
    placer = Placer(lambda: Rules(**rules), claims, lambda: hosts.host(1, 4, 2))

    def guest_of(uuid):
        if uuid not in guests:
            raise exception.GuestAbsent("no such guest")
        return nullcontext(guests[uuid])

    found = dry_run.run_all(placer, guest_of, requested)
    assert list(found) == list(requested)
    assert not any(guest.done for guest in guests.values())
    return {
        uuid: [step.desired for step in each.steps]
        if isinstance(each, dry_run.DryRun)
        else each.reason
        for uuid, each in found.items()
    }


def on(cpu):
    return request(vcpu_pinning=str(cpu))


def test_guests_of_one_request_may_swap_their_cpus():
    there = {UUID: 1, OTHER: 2}
    assert look_at_all({UUID: on(2), OTHER: on(1)}, there) == {UUID: ["2"] * 2, OTHER: ["1"] * 2}
    # Alone, each is in the way of the other.
    assert look_at_all({UUID: on(2)}, there) == {UUID: "overlap"}
    # If one of them can't move, the other can't either.
    refused = look_at_all({UUID: on(2), OTHER: on(9)}, there)
    assert refused == {UUID: "overlap", OTHER: "cpu_unknown"}
    chained = look_at_all({UUID: on(2), OTHER: on(3)}, there | {THIRD: 3})
    assert chained == {UUID: "overlap", OTHER: "overlap"}


def test_of_guests_of_one_request_the_first_one_gets_a_cpu():
    there = {UUID: 1, OTHER: 2}
    assert look_at_all({UUID: on(4), OTHER: on(4)}, there) == {
        UUID: ["4"] * 2,
        OTHER: "overlap",
    }
    warned = look_at_all({UUID: on(4), OTHER: on(4)}, there, overlap=Overlap.WARN)
    assert warned == {UUID: ["4"] * 2, OTHER: ["4"] * 2}


def test_a_released_guest_keeps_what_it_had_before_and_an_absent_one_has_nothing():
    # What it has without a baseline of Kongming's is its own.
    there = {UUID: 1, OTHER: 2}
    found = look_at_all({UUID: on(2), OTHER: Allocation(), ABSENT: on(2)}, there)
    assert found == {UUID: "overlap", OTHER: [], ABSENT: "guest_absent"}


def test_a_chain_of_guests_is_judged_once():
    def rotate(number):
        uuids = [instance(each) for each in range(1, number + 1)]
        requested = {uuid: on((cpu + 1) % number) for cpu, uuid in enumerate(uuids)}
        there = {uuid: cpu for cpu, uuid in enumerate(uuids)}
        return lambda: look_at_all(requested, there, host=WIDE)

    assert rotate(32)()[instance(32)] == ["0", "0"]
    # Twice as many guests have four times as many pairs.
    assert lines(rotate(32)) < 5 * lines(rotate(16))
