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
"""What is found to be wrong with a host's placement."""

from dataclasses import replace
import json

from hypothesis import given
from hypothesis import strategies as st
import pytest

from kongming.cpuset import CpuSet
from kongming.executor.rules import Overlap, Rules
from kongming.executor.violations import find
from kongming.hypervisor.topology import Cell, Cpu, Topology
from kongming.tests.hosts import guest, host

# CPUs 0 to 3 are in cell 0, 4 to 7 in cell 1; 3 is offline.
HOST = host(2, 4, 1, offline=[3])


def placed(number, pins, **more):
    """A guest that Kongming has placed."""
    return replace(guest(number, pins, **more), touched=True)


def found(guests, rules=Rules()):  # noqa: B008
    """Give kind, CPUs and nodes of what is found."""
    return [
        (str(each.kind), str(each.cpus), str(each.nodes)) for each in find(HOST, guests, rules)
    ]


def test_all_is_well():
    guests = [placed(1, "0:0;1:1", nodes="0"), guest(2, "0:2"), guest(3), guest(4, cpuset="0-1")]
    rules = Rules(reserved_cpus=CpuSet([4]), allowed_cpus=CpuSet.parse("0-3"))
    assert find(HOST, guests, rules) == ()


@pytest.mark.parametrize(
    ("other", "who"),
    [
        (placed(2, "0:1-2"), "placed by Kongming"),
        (guest(2, "0:1-2"), "Nova's"),
        (guest(2, "0:1-2", nova=False), "not Nova's"),
    ],
)
def test_two_share_a_cpu(other, who):
    mine = placed(1, "0:0;1:1-2")
    (violation,) = find(HOST, [other, mine], Rules())
    assert violation.kind == "overlap"
    assert violation.cpus == CpuSet([1, 2])
    assert set(violation.instance_uuids) == {mine.instance_uuid, other.instance_uuid}
    for each, placed_by in ((mine, "placed by Kongming"), (other, who)):
        assert f"instance {each.instance_uuid} ({each.name}, {placed_by})" in violation.message


def test_others_may_share_what_they_like():
    assert found([guest(n, "0:1", nova=False) for n in range(2)]) == []


def test_so_may_all_where_the_rules_allow_it():
    assert found([placed(1, "0:1"), placed(2, "0:1")], Rules(overlap=Overlap.ALLOW)) == []


def test_who_shares_the_same_cpus_is_told_of_once():
    guests = [*(placed(n, "0-3:0-2") for n in range(9)), placed(9, "0:0")]
    whole, part = find(HOST, guests, Rules())
    assert {(str(each.cpus), len(each.instance_uuids)) for each in (whole, part)} == {
        ("0", 10),
        ("1-2", 9),
    }
    assert part.message.endswith(", 5 more")


@pytest.mark.parametrize(
    ("who", "barred"),
    [
        (placed(1, "0:0-2"), "0-2"),
        (guest(1, "0:0-2"), "0"),
        (guest(1, "0:0-2", nova=False), "0-1"),
    ],
)
def test_where_it_should_not_be(who, barred):
    rules = Rules(
        reserved_cpus=CpuSet([0]), dedicated_cpus=CpuSet([1]), allowed_cpus=CpuSet([0, 1])
    )
    assert found([who], rules) == [("reserved", barred, "")]


def test_what_is_reserved_by_hand_is_still_novas():
    rules = Rules(reserved_cpus=CpuSet([1]), dedicated_cpus=CpuSet([1]))
    assert found([guest(1, "0:1")], rules) == []
    (violation,) = find(HOST, [placed(1, "0:1")], rules)
    assert "CPU 1 is reserved ([guard] reserved_cpus is 1)" in violation.message
    assert "CPU 1 is Nova's for guests with dedicated CPUs (1)" in violation.message


def test_pinned_to_what_is_not_there():
    (violation,) = find(HOST, [guest(1, "0:2-3;1:8")], Rules())
    assert (violation.kind, violation.cpus) == ("offline", CpuSet([3, 8]))
    assert violation.message.endswith(": CPU 3 is offline, CPU 8 does not exist")


def test_its_memory_is_elsewhere():
    assert found([guest(1, "0-1:0-1", nodes="1")]) == [("memory_away", "0-1", "1")]


@pytest.mark.parametrize(
    ("pins", "nodes"), [("0:0;1:4", "1"), ("0:0", "0-1"), ("0:0", None), ("", "1")]
)
def test_some_of_its_memory_is_near(pins, nodes):
    assert found([guest(1, pins, nodes=nodes)]) == []


def test_where_a_homeless_cpu_is_nobody_knows():
    homeless = Cpu(1, None, None, None, CpuSet([1]), False)
    topology = Topology((Cell(0, 1, cpus=host(1, 1, 1).cells[0].cpus), Cell(1, 1)), (homeless,))
    kinds = [str(each.kind) for each in find(topology, [guest(1, "0:0-1", nodes="1")], Rules())]
    assert kinds == ["offline"]


guests = st.builds(
    lambda touched, *arguments, **more: replace(guest(*arguments, **more), touched=touched),
    st.booleans(),
    st.integers(0, 9),
    st.sampled_from(["", "0:0", "0-1:2-3", "0:4;1:9", "0:0-5"]),
    nova=st.booleans(),
    nodes=st.sampled_from([None, "0", "1"]),
)


@given(st.lists(guests, unique_by=lambda each: each.instance_uuid), st.permutations(range(10)))
def test_the_order_of_the_guests_does_not_matter(guests, order):
    there = find(HOST, guests, Rules())
    shuffled = [guests[n] for n in order if n < len(guests)]
    shuffled += guests[10:]
    assert find(HOST, shuffled, Rules()) == there
    for violation in there:
        told = violation.to_json()
        assert json.loads(json.dumps(told)) == told
        for instance_uuid in violation.instance_uuids:
            (named,) = (each for each in guests if each.instance_uuid == instance_uuid)
            assert violation.cpus & named.cpus
