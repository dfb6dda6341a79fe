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
"""Requests of several guests, judged together: which guests have to move for which."""

from collections import Counter
import itertools
import random

from hypothesis import given
from hypothesis import strategies as st
import pytest

from kongming.allocation.cpuset import CpuSet
from kongming.executor.placing.admission import Move, judge
from kongming.host.occupant import Occupant
from kongming.tests.thorough import THOROUGH


def move(name, cpus, *more):
    """A guest of one vCPU that is to run on some CPUs, and QEMU's own threads on others."""
    cpus = CpuSet(cpus)
    return Move(name, CpuSet({*cpus, *itertools.chain(*more)}), {0: cpus})


def occupants(**places):
    return [Occupant(name, name, pins={0: CpuSet(cpus)}) for name, cpus in places.items()]


def verdict(of, there, *others):
    planned = {each.instance_uuid: each for each in others}
    found = judge(of, there, planned.get)
    return {each.instance_uuid: set(cpus) for each, cpus in found.in_the_way}, found.moving


def test_unused_cpus_are_free():
    assert verdict(move("a", [1]), occupants(a=[0], b=[2])) == ({}, frozenset())


def test_a_guest_that_stays_is_in_the_way():
    there = occupants(a=[0], b=[1, 2])
    assert verdict(move("a", [1, 3]), there) == ({"b": {1}}, frozenset())


def test_two_that_swap_let_each_other():
    there = occupants(a=[0], b=[1])
    assert verdict(move("a", [1]), there, move("b", [0])) == ({}, {"b"})
    assert verdict(move("b", [0]), there, move("a", [1])) == ({}, {"a"})


def test_a_whole_ring_moves_on():
    there = occupants(a=[0], b=[1], c=[2])
    planned = [move("a", [1]), move("b", [2]), move("c", [0])]
    for first in planned:
        others = {each.instance_uuid for each in planned} - {first.instance_uuid}
        assert verdict(first, there, *planned) == ({}, others)


def test_a_chain_whose_end_stays_does_not_move():
    there = occupants(a=[0], b=[1], c=[2])
    assert verdict(move("a", [1]), there, move("b", [2])) == ({"b": {1}}, frozenset())
    # It ends on a CPU that is free.
    assert verdict(move("a", [1]), there, move("b", [2]), move("c", [3])) == ({}, {"b", "c"})


def test_a_guest_that_moves_to_a_blocking_place_does_not_give_way():
    there = occupants(a=[0], b=[1, 2])
    assert verdict(move("a", [1]), there, move("b", [1, 3])) == ({"b": {1}}, frozenset())


def test_two_guests_that_request_the_same_place_do_not_both_get_it():
    there = occupants(a=[0], b=[1], c=[2])
    # b would have to go where c goes.
    planned = [move("b", [5]), move("c", [5])]
    found, moving = verdict(move("a", [1, 2]), there, *planned)
    assert len(found) == 1
    assert moving == frozenset()


def test_a_guest_that_failed_to_give_way_does_not_count_as_moved():
    # b gives way only if d does, which stays; c moves freely.
    there = occupants(a=[0], b=[1], c=[2], d=[3])
    found, moving = verdict(move("a", [1, 2]), there, move("b", [3]), move("c", [4]))
    assert found == {"b": {1}}
    assert moving == frozenset()


def test_emulator_threads_must_not_overlap_the_vcpus_of_other_guests():
    there = occupants(a=[0], b=[1])
    assert verdict(move("a", [0], [1]), there) == ({"b": {1}}, frozenset())


def test_a_guest_whose_other_threads_would_overlap_a_moving_guest_does_not_give_way():
    there = occupants(a=[0], b=[1])
    assert verdict(move("a", [1]), there, move("b", [2], [1])) == ({"b": {1}}, frozenset())
    # Beside its own vCPUs they may be.
    assert verdict(move("a", [1]), there, move("b", [2], [2, 3])) == ({}, {"b"})


def test_all_blocking_guests_are_named_with_their_cpus():
    there = [
        *occupants(a=[0], one=[1, 2], two=[5]),
        Occupant("floating", "floating"),
        Occupant("three", "three", pins={0: CpuSet([2]), 1: CpuSet([3])}),
    ]
    assert verdict(move("a", [2, 3]), there)[0] == {"one": {2}, "three": {2, 3}}


def test_a_guest_does_not_block_itself():
    assert verdict(move("a", [0, 1]), occupants(a=[0])) == ({}, frozenset())


@pytest.mark.parametrize(("length", "moves"), [(200, True), (202, False)])
def test_a_chain_has_an_end(length, moves):
    names = [f"g{number:03}" for number in range(length)]
    there = [Occupant(name, name, pins={0: CpuSet([at])}) for at, name in enumerate(names)]
    planned = [move(name, [at + 1]) for at, name in enumerate(names)]
    found, moving = verdict(planned[0], there, *planned)
    assert (not found) is moves
    assert len(moving) == (length - 1 if moves else 0)


places = st.lists(st.integers(0, 5), min_size=6, max_size=6)


@given(places, places, st.integers(0, 5))
def test_permitted_moves_never_leave_two_guests_on_the_same_cpu(now, then, first):
    there = [Occupant(str(i), str(i), pins={0: CpuSet([at])}) for i, at in enumerate(now)]
    planned = {str(i): move(str(i), [at]) for i, at in enumerate(then)}
    found = judge(planned[str(first)], there, planned.get)
    if found.in_the_way:
        assert not found.moving
        return
    after = dict(enumerate(now))
    for name in (str(first), *found.moving):
        after[int(name)] = then[int(name)]
    for name in (str(first), *found.moving):
        mine = after.pop(int(name))
        assert mine not in after.values()


@given(st.permutations(range(6)), st.integers(0, 5))
def test_any_permutation_is_carried_out(then, first):
    there = [Occupant(str(i), str(i), pins={0: CpuSet([i])}) for i in range(6)]
    planned = {str(i): move(str(i), [at]) for i, at in enumerate(then)}
    found = judge(planned[str(first)], there, planned.get)
    assert not found.in_the_way


@given(places, places, st.integers(0, 5))
def test_a_guest_moves_if_any_guests_can_move_with_it(now, then, first):
    def fits(movers):
        after = {i: then[i] if i in movers else now[i] for i in range(6)}
        return all(after[i] != at for i in movers for other, at in after.items() if other != i)

    others = [i for i in range(6) if i != first]
    sets = itertools.chain.from_iterable(itertools.combinations(others, n) for n in range(6))
    there = [Occupant(str(i), str(i), pins={0: CpuSet([at])}) for i, at in enumerate(now)]
    planned = {str(i): move(str(i), [at]) for i, at in enumerate(then)}
    found = judge(planned[str(first)], there, planned.get)
    assert bool(found.in_the_way) is not any(fits({first, *movers}) for movers in sets)


@pytest.mark.parametrize("cpus", [1, 2, 8, 40])
def test_a_host_whose_guests_all_move_is_judged_by_observing_each_once(cpus):
    chance = random.Random(cpus)
    names = [f"g{number}" for number in range(50)]
    there = [Occupant(name, name, pins={0: CpuSet([chance.randrange(cpus)])}) for name in names]
    planned = {name: move(name, [chance.randrange(cpus)]) for name in names}
    looked = Counter()

    def moves(name):
        looked[name] += 1
        assert looked[name] == 1, f"{name} was looked at before"
        return planned[name]

    for name in names if THOROUGH else names[::5]:
        looked.clear()
        judge(planned[name], there, moves)


@pytest.mark.parametrize("layers", [4, 40])
def test_guests_that_each_wait_for_two_others_are_visited_once(layers):
    # Both of a layer wait for both of the next, with QEMU's own threads; the last ones stay.
    at = {f"g{cpu}": cpu for cpu in range(2 * layers)}
    there = [Occupant(name, name, pins={0: CpuSet([cpu])}) for name, cpu in at.items()]
    planned = {
        name: move(name, [100 + cpu], [cpu // 2 * 2 + 2, cpu // 2 * 2 + 3])
        for name, cpu in at.items()
        if cpu < 2 * layers - 2
    }
    calls = Counter()

    def contested(cpus):
        calls["times"] += 1
        assert calls["times"] <= 4 * len(there)
        return cpus

    found = judge(planned["g0"], there, planned.get, contested)
    assert {each.instance_uuid for each, _cpus in found.in_the_way} == {"g2", "g3"}
