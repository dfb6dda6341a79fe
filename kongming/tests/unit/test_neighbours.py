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

"""The rules for guests that share CPUs, or cores."""

from functools import partial
import re

from hypothesis import given
from hypothesis import strategies as st
import pytest

from kongming import exception
from kongming.allocation.cpuset import CpuSet
from kongming.executor.placing import admission, neighbours
from kongming.executor.placing.admission import Move
from kongming.host.occupant import Occupant
from kongming.host.rules import Overlap, Rules

#: CPU n and n + 8 are the threads of one core.
CORES = {cpu: CpuSet([cpu % 8, cpu % 8 + 8]) for cpu in range(16)}
UUID = "5f0c3b52-6a0e-4c6e-9a5f-0d6a4f0b8c11"


def move(name, *cpus):
    return Move(name, CpuSet(cpus), {0: CpuSet(cpus)})


def occupants(**places):
    return [Occupant(name, name, pins={0: CpuSet(cpus)}) for name, cpus in places.items()]


def check(mine, there, *others, overlap=Overlap.WARN, smt=Overlap.WARN, cores=CORES):
    """Judge a move; the others are known to be about to move, too."""
    planned = {each.instance_uuid: each for each in others}
    rules = Rules(overlap=overlap, smt=smt)
    judge = partial(admission.judge, mine, there, planned.get)
    return neighbours.check(mine, rules, cores, judge)


def test_an_empty_host_has_no_neighbours():
    assert check(move("a", 0), occupants(b=[1], c=[9])) == neighbours.Neighbours()


def test_rules_that_allow_all_neighbours_need_no_search():
    def judge(contested):
        raise AssertionError(contested)

    rules = Rules(overlap=Overlap.ALLOW, smt=Overlap.ALLOW)
    assert neighbours.check(move("a", 0), rules, CORES, judge) == neighbours.Neighbours()


def test_a_guest_on_the_other_thread_of_a_core_is_reported_with_both_cpus():
    other = Occupant(UUID, "router", pins={0: CpuSet([1]), 1: CpuSet([12])})
    found = check(move("a", 4, 5), [other])
    where = "CPU 12 beside CPU 4"
    assert found.warnings == (
        f"other guests are pinned to the same cores: {where}: instance {UUID} (router)",
    )


def test_a_guest_on_the_other_thread_of_a_core_is_refused_with_both_cpus_and_the_way_out():
    expected = (
        "other guests are pinned to the same cores: CPU 9,12 beside CPU 1,4: instance b (b); "
        "request CPUs of other cores, or set [guard] smt to warn"
    )
    with pytest.raises(exception.SmtSibling, match=re.escape(expected)) as refused:
        check(move("a", 0, 1, 4), occupants(b=[9, 12, 13]), smt=Overlap.REFUSE)
    assert refused.value.reason == "smt_sibling"


def test_requested_threads_of_one_core_are_no_neighbours():
    there = occupants(b=[0, 8])
    assert check(move("a", 0, 8), there, smt=Overlap.REFUSE).warnings == (
        "other guests are pinned to the same CPUs: CPU 0,8: instance b (b)",
    )
    with pytest.raises(exception.SmtSibling, match="CPU 8 beside CPU 0: instance b"):
        check(move("a", 0), there, smt=Overlap.REFUSE)


def test_an_overlap_of_cpus_is_reported_before_one_of_cores():
    there = occupants(b=[0], c=[9])
    with pytest.raises(exception.Overlap, match="CPU 0: instance b"):
        check(move("a", 0, 1), there, overlap=Overlap.REFUSE, smt=Overlap.REFUSE)
    with pytest.raises(exception.SmtSibling, match="CPU 9 beside CPU 1: instance c"):
        check(move("a", 1), there, overlap=Overlap.REFUSE, smt=Overlap.REFUSE)


def test_cpus_without_known_siblings_have_no_neighbours():
    assert check(move("a", 0), occupants(b=[8]), smt=Overlap.REFUSE, cores={}).warnings == ()


def test_a_guest_that_moves_off_the_core_is_waited_for():
    there = occupants(a=[1], b=[8])
    found = check(move("a", 0), there, move("b", 9), smt=Overlap.REFUSE)
    assert found == neighbours.Neighbours(moving=frozenset("b"))
    # To the same core: that would not do.
    with pytest.raises(exception.SmtSibling):
        check(move("a", 0), there, move("b", 8, 9), smt=Overlap.REFUSE)


def test_a_warning_prevents_no_move():
    # They swap the threads of one core: if that were refused neither would give way.
    there, swap = occupants(a=[0], b=[8]), (move("a", 8), move("b", 0))
    found = check(swap[0], there, swap[1], overlap=Overlap.REFUSE)
    assert (found.warnings, found.moving) == ((), {"b"})
    with pytest.raises(exception.Overlap):
        check(swap[0], there, swap[1], overlap=Overlap.REFUSE, smt=Overlap.REFUSE)
    # Who comes second meets the first one.
    found = check(swap[1], occupants(a=[8], b=[8]), overlap=Overlap.REFUSE)
    assert found.warnings == (
        "other guests are pinned to the same cores: CPU 8 beside CPU 0: instance a (a)",
    )


reactions = st.sampled_from(Overlap)
places = st.frozensets(st.integers(0, 15), min_size=1, max_size=4)


@given(places, places, reactions, reactions)
def test_a_guest_is_reported_exactly_if_the_rules_concern_it(mine, others, overlap, smt):
    same = mine & others
    beside = {cpu for cpu in others - mine if (cpu + 8) % 16 in mine}
    there = occupants(b=others)
    refused = (same and overlap is Overlap.REFUSE, beside and smt is Overlap.REFUSE)
    try:
        found = check(move("a", *mine), there, overlap=overlap, smt=smt)
    except exception.Overlap:
        assert refused[0]
    except exception.SmtSibling:
        assert refused[1]
        assert not refused[0]
    else:
        assert not any(refused)
        expected = (same and overlap is Overlap.WARN, beside and smt is Overlap.WARN)
        assert len(found.warnings) == sum(map(bool, expected))
        assert found.moving == set()
