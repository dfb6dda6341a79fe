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

from kongming.allocation.cpuset import CpuSet
from kongming.host.rules import Overlap, Rules
from kongming.host.topology import Cell, Cpu, Topology
from kongming.host.violations import find
from kongming.tests.hosts import guest, host

# CPUs 0 to 3 are in cell 0, 4 to 7 in cell 1; 3 is offline.
HOST = host(2, 4, 1, offline=[3])


def placed(number, pins, **more):
    """A guest that Kongming has placed."""
    return replace(guest(number, pins, **more), touched=True)


def found(guests, rules=Rules(), there=HOST):  # noqa: B008
    """Return kind, CPUs and nodes of each violation."""
    return [
        (str(each.kind), str(each.cpus), str(each.nodes)) for each in find(there, guests, rules)
    ]


def test_a_host_in_order_has_no_violations():
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


def test_guests_that_the_rules_ignore_may_share_any_cpus():
    assert found([guest(n, "0:1", nova=False) for n in range(2)]) == []


def test_all_guests_may_share_cpus_where_the_rules_allow_it():
    assert found([placed(1, "0:1"), placed(2, "0:1")], Rules(overlap=Overlap.ALLOW)) == []


def test_guests_that_share_the_same_cpus_are_reported_once():
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
def test_a_guest_on_forbidden_cpus_is_a_violation(who, barred):
    rules = Rules(
        reserved_cpus=CpuSet([0]), dedicated_cpus=CpuSet([1]), allowed_cpus=CpuSet([0, 1])
    )
    assert found([who], rules) == [("reserved", barred, "")]


def test_manually_reserved_cpus_still_belong_to_nova():
    rules = Rules(reserved_cpus=CpuSet([1]), dedicated_cpus=CpuSet([1]))
    assert found([guest(1, "0:1")], rules) == []
    (violation,) = find(HOST, [placed(1, "0:1")], rules)
    assert "CPU 1 is reserved ([guard] reserved_cpus is 1)" in violation.message
    assert "CPU 1 is for guests with dedicated CPUs (1)" in violation.message


def test_a_pin_to_missing_cpus_is_a_violation():
    (violation,) = find(HOST, [guest(1, "0:2-3;1:8")], Rules())
    assert (violation.kind, violation.cpus) == ("offline", CpuSet([3, 8]))
    assert violation.message.endswith(": CPU 3 is offline, CPU 8 does not exist")
    # All that is online is there.
    assert found([guest(1, "0:0-2,4-7")]) == []


def test_memory_on_another_node_is_a_violation():
    assert found([guest(1, "0-1:0-1", nodes="1")]) == [("remote_memory", "0-1", "1")]


@pytest.mark.parametrize(
    ("pins", "nodes"), [("0:0;1:4", "1"), ("0:0", "0-1"), ("0:0", None), ("", "1")]
)
def test_memory_that_is_partly_near_is_reported(pins, nodes):
    assert found([guest(1, pins, nodes=nodes)]) == []


def test_the_distance_of_a_cpu_of_no_cell_is_unknown():
    cells = (Cell(0, 1, cpus=host(1, 1, 1).cells[0].cpus), Cell(1, 1))
    topology = Topology(cells, (Cpu.bare(1),))
    kinds = [str(each.kind) for each in find(topology, [guest(1, "0:0-1", nodes="1")], Rules())]
    assert kinds == ["offline"]


# CPU n and n + 4 are the threads of one core.
THREADS = host(2, 2, 2)


@pytest.mark.parametrize(
    ("guests", "cpus"),
    [
        ([placed(1, "0:0"), guest(2, "0:4")], "0,4"),
        ([placed(1, "0:0"), guest(2, "0:4", nova=False)], "0,4"),
        ([placed(1, "0:0-1"), placed(2, "0:4;1:5"), placed(3, "0:3")], "0-1,4-5"),
        # Nova packs its guests, and so may others.
        ([guest(1, "0:0"), guest(2, "0:4", nova=False)], None),
        # Not the core is shared, but the CPUs.
        ([placed(1, "0:0-1"), placed(2, "0:0-1")], None),
        ([placed(1, "0:0,4"), placed(2, "0:0,4")], None),
        # A guest is no neighbour to itself.
        ([placed(1, "0:0;1:4"), placed(2, "0:1")], None),
        ([placed(1, "0:0"), guest(2), guest(3, cpuset="4")], None),
    ],
)
def test_guests_on_different_threads_of_a_core_share_it(guests, cpus):
    expected = [] if cpus is None else [("smt_sibling", cpus, "")]
    assert [each for each in found(guests, there=THREADS) if each[0] != "overlap"] == expected
    assert "smt_sibling" not in {
        kind for kind, *_more in found(guests, Rules(smt=Overlap.ALLOW), THREADS)
    }


def test_guests_that_share_cores_are_named_with_their_cpus():
    mine, other = placed(1, "0:0-1"), guest(2, "0:4-5")
    (violation,) = find(THREADS, [other, mine], Rules(smt=Overlap.REFUSE))
    assert violation.instance_uuids == (mine.instance_uuid, other.instance_uuid)
    assert violation.message == (
        f"guests share cores: CPU 0-1 with instance {mine.instance_uuid} "
        f"({mine.name}, placed by Kongming), CPU 4-5 with instance {other.instance_uuid} "
        f"({other.name}, Nova's)"
    )


def test_a_core_may_be_shared_in_addition_to_a_cpu():
    guests = [placed(1, "0:0"), placed(2, "0:0;1:4")]
    assert found(guests, there=THREADS) == [("overlap", "0", ""), ("smt_sibling", "0,4", "")]


ISOLATED = Topology(
    tuple(
        replace(cell, cpus=tuple(replace(cpu, isolated=2 <= cpu.id <= 5) for cpu in cell.cpus))
        for cell in host(2, 4, 1).cells
    )
)


@pytest.mark.parametrize(
    ("who", "cpus"),
    [
        (placed(1, "0:2;1:3"), []),
        (placed(1, "0-1:2"), []),
        (placed(1, "0-1:0-1"), []),
        (guest(1, "0-1:2-3"), ["2-3"]),
        (guest(1, "0:1-2", nova=False), ["2"]),
        (placed(1, "0:2-3;1:4-5;2:6"), ["2-3", "4-5"]),
        # Who floats over others, too, runs there.
        (guest(1, cpuset="2-5"), ["2-5"]),
        (guest(1, cpuset="2"), []),
        (guest(1, cpuset="1-5"), []),
        (guest(1), []),
        (guest(1, "0:0", cpuset="2-5"), []),
    ],
)
def test_a_set_of_isolated_cpus_does_not_serve_vcpus(who, cpus):
    assert found([who], there=ISOLATED) == [("isolated", each, "") for each in cpus]


def test_pins_to_isolated_cpus_are_proposed():
    (violation,) = find(ISOLATED, [guest(1, "0-1:2-3")], Rules())
    assert violation.message.startswith(f"instance {guest(1).instance_uuid} (instance-00000001, ")
    assert violation.message.endswith("; pin each to one CPU: 0:2;1:3")


def test_cpus_in_a_gap_do_not_exist():
    there = Topology((Cell(0, 1, cpus=tuple(map(Cpu.bare, (0, 1, 8)))),))
    (violation,) = find(there, [guest(1, "0:1,5")], Rules())
    assert violation.message.endswith(": CPU 1 is offline, CPU 5 does not exist")


def cell(number, memory_kib, *cpus, **distances):
    online = tuple(Cpu.bare(cpu, online=True) for cpu in cpus)
    measured = {int(name[1:]): distance for name, distance in distances.items()}
    return Cell(number, memory_kib, distances=measured, cpus=online)


#: Node 1 has no memory and 3 is nearer to it than 0; node 9 has no CPUs and is beside 0.
UNEVEN = Topology(
    (
        cell(0, 1, 0, 1, n0=10, n1=30, n3=30, n9=15),
        cell(1, 0, 2, 3, n0=30, n1=10, n3=20, n9=40),
        cell(3, 1, 4, 5, n0=30, n1=20, n3=10, n9=40),
        cell(9, 1),
    )
)


@pytest.mark.parametrize(
    ("pins", "nodes", "remote"),
    [
        ("0:2", "3", False),
        ("0:2", "0", True),
        ("0:2", "0,3", False),
        ("0:2;1:0", "0", False),
        ("0:0", "9", False),
        ("0:4", "9", True),
        ("0:4;1:1", "9", False),
        ("0:0", "0", False),
        ("0:0", "3", True),
    ],
)
def test_memory_is_judged_by_the_nearest_cells(pins, nodes, remote):
    cpus = str(guest(1, pins).cpus)
    expected = [("remote_memory", cpus, nodes)] if remote else []
    assert found([guest(1, pins, nodes=nodes)], there=UNEVEN) == expected


def test_the_nearest_memory_is_named_if_it_is_not_on_the_same_node():
    (violation,) = find(UNEVEN, [guest(1, "0:2", nodes="0")], Rules())
    assert violation.message.endswith("node 0; the nearest memory is that of node 3")
    (violation,) = find(UNEVEN, [guest(1, "0:4", nodes="0")], Rules())
    assert violation.message.endswith("pinned to NUMA node 3, its memory is bound to node 0")


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
        shown = violation.to_json()
        assert json.loads(json.dumps(shown)) == shown
        for instance_uuid in violation.instance_uuids:
            (named,) = (each for each in guests if each.instance_uuid == instance_uuid)
            assert violation.cpus & named.cpus
