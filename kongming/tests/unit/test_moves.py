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

"""Where other guests are to move, for a request that needs their CPUs."""

from dataclasses import replace

import pytest

from kongming import exception
from kongming.allocation.allocation import Windowed
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.request import Request, Source
from kongming.allocation.statuses import Status
from kongming.allocation.windows import Window
from kongming.executor.placing.admission import Move
from kongming.executor.placing.claims import Claims
from kongming.executor.placing.moves import Moves
from kongming.executor.placing.placer import Placer
from kongming.host.occupant import Occupant
from kongming.host.rules import Rules
from kongming.tests import guests, hosts

UUID = "5a6e9b1e-0000-4000-8000-000000000001"
NIGHT = Window("night", "0 22 * * *", 3600, "UTC")


def asking(pinning):
    return guests.request(vcpu_pinning=pinning)


def is_checked(store, pins):
    hypervisor = guests.Hypervisor()
    other = Occupant(UUID, "a guest", pins={vcpu: CpuSet(cpus) for vcpu, cpus in pins.items()})
    assert Moves(store, hypervisor, None).of(other) is None
    return hypervisor.looked_at == [UUID]


def request(store, allocation, status, accepted=None):
    store.request(UUID, Request(Source.METADATA, allocation, "", 1.0))
    store.report(store.get(UUID), status, accepted=accepted)


@pytest.mark.parametrize(
    ("pins", "checked"),
    [
        ({0: [1], 1: [2]}, False),
        ({0: [1]}, False),
        ({0: [3], 1: [2]}, True),
        ({0: [1, 2], 1: [2]}, True),
        ({0: [1], 1: [2], 2: [3]}, True),
    ],
)
def test_a_guest_at_its_desired_place_stays(store, pins, checked):
    allocation = asking("0:1;1:2")
    request(store, allocation, Status.APPLIED, accepted=allocation)
    assert is_checked(store, pins) is checked


@pytest.mark.parametrize("status", [Status.PENDING, Status.DRIFTED, Status.ABSENT])
def test_a_guest_without_its_desired_cpus_may_move(store, status):
    allocation = asking("0:1")
    request(store, allocation, status, accepted=allocation)
    assert is_checked(store, {0: [1]})


def test_a_guest_with_an_older_placement_may_move(store):
    request(store, asking("0:1"), Status.APPLIED, accepted=asking("0:2"))
    assert is_checked(store, {0: [1]})


def test_a_guest_with_windows_may_move(store):
    allocation = replace(asking("1"), windows=(Windowed(NIGHT, asking("2")),))
    request(store, allocation, Status.APPLIED, accepted=allocation)
    assert is_checked(store, {0: [1]})


def test_a_guest_without_requested_pins_may_move(store):
    allocation = guests.request(cpu_shares="512")
    request(store, allocation, Status.APPLIED, accepted=allocation)
    assert is_checked(store, {0: [1]})


def test_an_unknown_guest_stays(store):
    assert not is_checked(store, {0: [1]})


class Guests(guests.Hypervisor):
    """A libvirt with one guest that runs on CPUs 0 and 1, and what it is to have."""

    def __init__(self, store, host=guests.HOST):
        super().__init__()
        self.running = guests.Guest(host, guests.pin(0, 0) + guests.pin(1, 1))
        self.guests[UUID] = self.running
        placer = Placer(Rules, Claims(list), lambda: hosts.host(1, 4, 2))
        self._moves = Moves(store, self, placer)

    def move(self):
        return self._moves.of(Occupant(UUID, "a guest", pins={0: CpuSet([0]), 1: CpuSet([1])}))


def to(first, second):
    cpus = CpuSet([first]), CpuSet([second])
    return Move(UUID, cpus[0] | cpus[1], dict(enumerate(cpus)))


def test_a_guest_moves_to_its_requested_place(store):
    request(store, asking("0:2;1:3"), Status.PENDING)
    host = Guests(store)
    assert host.move() == to(2, 3)
    host.running.busy = True
    assert host.move() is None


def test_a_guest_at_its_requested_place_stays(store):
    request(store, asking("0:0;1:1"), Status.PENDING)
    assert Guests(store).move() is None


@pytest.mark.parametrize(
    ("refusal", "goes"),
    [
        (exception.Overlap, to(4, 5)),
        (exception.SmtSibling, to(4, 5)),
        (exception.ProjectNotAllowed, to(2, 3)),
    ],
)
def test_a_refusal_counts_unless_it_is_for_other_guests(store, refusal, goes):
    request(store, asking("0:2;1:3"), Status.PENDING, accepted=asking("0:2;1:3"))
    store.request(UUID, Request(Source.METADATA, asking("0:4;1:5"), "", 2.0))
    store.report(store.get(UUID), Status.REFUSED, refusal("no"))
    assert Guests(store).move() == goes


def test_a_guest_with_an_unreadable_request_returns_to_its_former_place(store):
    accepted = asking("0:2;1:3")
    request(store, accepted, Status.APPLIED, accepted=accepted)
    store.request(UUID, Request(Source.METADATA, exception.RequestInvalid("no"), "", 2.0))
    assert Guests(store).move() == to(2, 3)


def test_a_guest_that_could_not_be_placed_stays(store):
    request(store, asking("0:2;1:3"), Status.FAILED)
    assert Guests(store).move() is None


@pytest.mark.parametrize("accepted", [True, False])
def test_cpus_that_are_offline_are_waited_for_only_if_they_were_accepted(store, accepted):
    offline = replace(guests.HOST, online=guests.ALL - {3})
    allocation = asking("0:2;1:2-3")
    request(store, allocation, Status.PENDING, accepted=allocation if accepted else None)
    found = Guests(store, offline).move()
    assert (None if found is None else found.cpus) == (CpuSet([2, 3]) if accepted else None)


def test_a_guest_moves_to_the_place_of_the_window_in_force(store):
    always = Window("always", "* * * * *", 3600, "UTC")
    windows = (Windowed(always, asking("0:4;1:5")),)
    request(store, replace(asking("0:2;1:3"), windows=windows), Status.PENDING)
    assert Guests(store).move() == to(4, 5)
