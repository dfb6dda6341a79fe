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


"""Claims: two guests that are placed at once do not get the same CPUs."""

import pytest

from kongming.allocation.cpuset import CpuSet
from kongming.executor.placing.admission import Move
from kongming.executor.placing.claims import Claims
from kongming.host.occupant import Occupant


def move(name, *cpus):
    return Move(name, CpuSet(cpus), {0: CpuSet(cpus)})


def occupant(name, *cpus):
    return Occupant(name, name, pins={0: CpuSet(cpus)})


def verdict(judge):
    return judge(lambda cpus: cpus)


def names(verdict):
    return [other.instance_uuid for other, _cpus in verdict.in_the_way]


def test_a_guest_blocks_others_while_it_is_being_placed():
    claims = Claims(lambda: [occupant("c", 2)])
    with claims.claim(move("a", 1), verdict) as first:
        assert not first.in_the_way
        with claims.claim(move("b", 1, 2), verdict) as second:
            assert names(second) == ["c", "a"]
            assert second.in_the_way[1][0].name == "being placed now"
    with claims.claim(move("b", 1), verdict) as third:
        assert not third.in_the_way


def test_a_guest_that_is_being_placed_counts_at_its_new_place_only():
    claims = Claims(lambda: [occupant("a", 1)])
    with claims.claim(move("a", 3), verdict):
        with claims.claim(move("b", 1), verdict) as found:
            assert not found.in_the_way
        with claims.claim(move("b", 3), verdict) as found:
            assert names(found) == ["a"]


def test_a_guest_that_is_to_move_gives_way_unless_it_is_being_placed():
    moves = {"a": move("a", 5)}
    claims = Claims(lambda: [occupant("a", 1)], lambda other: moves.get(other.name))
    with claims.claim(move("b", 1), verdict) as found:
        assert (names(found), found.moving) == ([], {"a"})
    with claims.claim(move("a", 1), verdict), claims.claim(move("b", 1), verdict) as found:
        assert names(found) == ["a"]


def test_foreseen_moves_count_for_a_dry_run_only_and_are_judged_together():
    claims = Claims(lambda: [occupant("a", 1), occupant("b", 2), occupant("c", 3)])
    foreseeing = claims.foresee({"a": move("a", 2), "b": move("b", 5), "c": None})
    with foreseeing.claim(move("a", 2), verdict) as found:
        assert (names(found), found.moving) == ([], {"b"})
        foreseeing.expect(found.moving)
        with foreseeing.claim(move("d", 5, 3, 1), verdict) as other:
            assert {each.instance_uuid: each.name for each, _ in other.in_the_way} == {
                "b": "in the same request",
                "c": "c",
            }
    with claims.claim(move("d", 5, 2), verdict) as found:
        assert names(found) == ["b"]
    claims.expect(["a"])
    with claims.claim(move("d", 1), verdict) as found:
        assert names(found) == ["a"]


def test_a_claim_that_is_refused_or_fails_leaves_no_trace():
    def refuse(_judge):
        raise LookupError

    claims = Claims(list)
    with pytest.raises(LookupError), claims.claim(move("a", 1), refuse):
        pass
    with pytest.raises(LookupError), claims.claim(move("a", 1), verdict):
        raise LookupError
    with claims.claim(move("b", 1), verdict) as found:
        assert not found.in_the_way
