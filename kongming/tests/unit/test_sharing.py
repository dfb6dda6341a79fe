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

"""Who shares what, held against the plain way to find it out."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from kongming.allocation.cpuset import CpuSet
from kongming.host import sharing

pinned = st.lists(st.frozensets(st.integers(0, 12)).map(CpuSet), max_size=6)
#: Four cores of three CPUs each, and a CPU without siblings.
CORES = [CpuSet([core, core + 4, core + 8]) for core in range(4)]


def numbers(guests):
    return tuple(sharing.numbers(guests))


@given(pinned)
def test_the_guests_of_a_cpu_are_those_that_are_pinned_to_it(sets):
    seats = sharing.seats(sets)
    for cpu in range(14):
        there = tuple(n for n, cpus in enumerate(sets) if cpu in cpus)
        assert numbers(seats.get(cpu, 0)) == there
        assert (cpu in seats) is bool(there)
    assert list(seats) == sorted(seats)


@given(pinned)
def test_cpus_are_together_that_the_same_guests_share(sets):
    found = {
        numbers(guests): set(cpus) for cpus, guests in sharing.shared_cpus(sharing.seats(sets))
    }
    there = {cpu: tuple(n for n, cpus in enumerate(sets) if cpu in cpus) for cpu in range(13)}
    shared = {cpu: guests for cpu, guests in there.items() if len(guests) > 1}
    assert found == {
        guests: {cpu for cpu, each in shared.items() if each == guests}
        for guests in shared.values()
    }


@given(pinned)
def test_cores_are_shared_by_guests_on_different_cpus_of_them(sets):
    found = set()
    for parts in sharing.shared_cores(sharing.seats(sets), CORES):
        of_cores = [dict.fromkeys(cpus, numbers(guests)) for cpus, guests in parts]
        found.add(frozenset(itertools.chain(*(each.items() for each in of_cores))))
    reported = set().union(*found) if found else set()
    assert sum(map(len, found)) == len(reported)
    for core in CORES:
        there = {cpu: tuple(n for n, cpus in enumerate(sets) if cpu in cpus) for cpu in core}
        taken = {(cpu, guests) for cpu, guests in there.items() if guests}
        if len({guests for _cpu, guests in taken}) > 1:
            assert taken <= reported
        else:
            assert not taken & reported


def test_equal_cores_are_reported_together():
    seats = sharing.seats([CpuSet([0, 1, 2]), CpuSet([4, 5, 10])])
    assert sharing.shared_cores(seats, CORES) == [
        ((CpuSet([0, 1, 2]), 0b01), (CpuSet([4, 5, 10]), 0b10))
    ]


def test_an_overlap_of_too_many_guests_is_reported_as_one():
    # Each CPU has one guest more than the one before it: 141 * 142 / 2 pairs are too many.
    sets = [CpuSet(range(first, 142)) for first in range(141)]
    ((cpus, guests),) = sharing.shared_cpus(sharing.seats(sets))
    assert (cpus, guests.bit_count()) == (CpuSet(range(1, 142)), 141)
    assert len(sharing.shared_cpus(sharing.seats(sets[:140]))) == 139


def test_guests_up_to_the_limit_are_reported_individually(monkeypatch):
    seats = sharing.seats([CpuSet([0]), CpuSet([1, 2]), CpuSet([1, 2, 4]), CpuSet([2])])
    on_cpus = [(CpuSet([1]), 0b0110), (CpuSet([2]), 0b1110)]
    on_cores = [((CpuSet([0]), 0b0001), (CpuSet([4]), 0b0100))]
    monkeypatch.setattr(sharing, "_LISTED_MAX", 5)
    assert sharing.shared_cpus(seats) == on_cpus
    assert sharing.shared_cores(seats, CORES) == on_cores
    monkeypatch.setattr(sharing, "_LISTED_MAX", 4)
    assert sharing.shared_cpus(seats) == [(CpuSet([1, 2]), 0b1110)]
    assert sharing.shared_cores(seats, CORES) == on_cores
    monkeypatch.setattr(sharing, "_LISTED_MAX", 2)
    assert sharing.shared_cores(seats, CORES) == on_cores
    monkeypatch.setattr(sharing, "_LISTED_MAX", 1)
    assert sharing.shared_cores(seats, CORES) == [((CpuSet([0, 4]), 0b0101),)]


def test_an_overlap_on_too_many_cores_is_reported_as_one():
    cores = [CpuSet([core, core + 500]) for core in range(500)]
    sets = [CpuSet(range(first, 141)) for first in range(140)]
    alone = CpuSet(range(500, 1000))
    ((part,),) = sharing.shared_cores(sharing.seats([*sets, alone]), cores)
    assert part == (CpuSet([*range(141), *range(500, 641)]), 2**141 - 1)
    fewer = sharing.shared_cores(sharing.seats([*sets[:100], alone]), cores)
    assert {len(parts) for parts in fewer} == {2}
