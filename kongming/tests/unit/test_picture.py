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

"""The picture of a host: what an operator sees.

The pictures of whole hosts are in ``kongming/tests/data/pictures``: check
them as an operator would before you change one.
"""

from dataclasses import replace
from pathlib import Path
import re

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from kongming.allocation.cpuset import CpuSet
from kongming.host import snapshot
from kongming.host.rules import Rules
from kongming.host.topology import EFFICIENCY, PERFORMANCE, Cache, Cell, Cpu, Topology
from kongming.terminal import host_snapshot, picture
from kongming.terminal.text import columns, spans
from kongming.tests.hosts import guest, host
from kongming.tests.thorough import examples

PICTURES = Path(__file__).parents[1] / "data" / "pictures"

LAPTOP = host(1, 2, 1), [guest(1, "0-1:1"), guest(2)], Rules()

TWO_CELLS = (
    host(2, 2, 2, offline=[7]),
    [
        guest(1, "0:1;1:5", nodes="0"),
        guest(2, "0:5;1-3:2-3,6"),
        guest(3, "0:3", name="router", nova=False),
        guest(4, cpuset="0-3"),
    ],
    Rules(
        reserved_cpus=CpuSet.parse("0,4"),
        dedicated_cpus=CpuSet.parse("3"),
        allowed_nodes=CpuSet.parse("0"),
    ),
)


def _eight_vcpus(first):
    """On both threads of four cores of a host of 256 CPUs."""
    return ";".join(f"{vcpu}:{first + vcpu // 2 + vcpu % 2 * 128}" for vcpu in range(8))


_MANY = [
    *(guest(number, _eight_vcpus(2 + number * 4)) for number in range(10)),
    guest(16, "0-3:60-63,188-191"),
    *(guest(number, "0-3:100-120,228-248") for number in range(32, 37)),
    *(guest(number) for number in range(48, 51)),
]
TWO_SOCKETS = (
    host(2, 64, 2, memory_gib=512),
    _MANY,
    Rules(
        reserved_cpus=CpuSet.parse("0-1,128-129"),
        dedicated_cpus=CpuSet.parse("64-95,192-223"),
    ),
)
EIGHT_CELLS = (
    host(8, 16, 2, l3=2, memory_gib=128),
    _MANY,
    Rules(
        reserved_cpus=CpuSet.parse("0-1,128-129"),
        allowed_cpus=CpuSet.parse("0-15,64-143,192-255"),
    ),
)


def _hybrid():
    """Two performance cores of two threads, four efficiency cores; one CPU is offline."""
    fast = [Cpu(n, 0, 0, n // 2, CpuSet([n // 2 * 2, n // 2 * 2 + 1]), True) for n in range(4)]
    slow = [Cpu(n, 0, 0, n * 2, CpuSet([n]), True, isolated=n > 5) for n in range(4, 8)]
    typed = [
        *(replace(cpu, core_type=PERFORMANCE, capacity=1024) for cpu in fast),
        *(replace(cpu, core_type=EFFICIENCY, capacity=610) for cpu in slow),
    ]
    cells = (Cell(0, 16 << 20, cpus=(*typed, Cpu.bare(8))), Cell(1, 0))
    guests = [replace(guest(1, "0:0;1:2", nodes="0"), touched=True), guest(2, "0:1;1:6")]
    return Topology(cells), guests, Rules()


INTERLEAVED = host(2, 20, 2, memory_gib=96, interleaved=True), [guest(1, "0-3:2,4,42,44")], Rules()


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("one-cpu", (host(1, 1, 1, memory_gib=1), [], Rules())),
        ("laptop", LAPTOP),
        ("two-cells", TWO_CELLS),
        ("two-sockets-256-cpus", TWO_SOCKETS),
        ("eight-cells-256-cpus", EIGHT_CELLS),
        ("interleaved-numbers", INTERLEAVED),
        ("two-types-of-cores", _hybrid()),
    ],
)
def test_hosts_are_drawn_like_the_samples(name, drawn):
    shown = host_snapshot.draw(snapshot.to_json(*drawn))
    assert shown.partition("\n\nViolations")[0] + "\n" == (PICTURES / f"{name}.txt").read_text()


def test_the_largest_hosts_fit_on_a_few_screens():
    assert len(picture.draw(*EIGHT_CELLS).splitlines()) < 100


def test_cpus_of_an_unknown_cell_are_drawn_apart():
    unassigned = Cpu.bare(9)
    drawn = picture.draw(Topology(host(2, 2, 1).cells, (unassigned,)), [], Rules())
    assert "CPUs of an unknown NUMA cell:\n  ┌ core ? ┐\n  │ 9 X    │\n" in drawn


def test_a_cell_may_have_memory_only():
    cells = (*host(1, 2, 1).cells, Cell(1, 16 << 20))
    assert "NUMA cell 1: no CPUs, 16 GiB of memory" in picture.draw(Topology(cells), [], Rules())


def test_a_cell_of_several_sockets_shows_them_separately():
    cpus = tuple(Cpu(n, n // 2, 0, n % 2, CpuSet([n]), True) for n in range(4))
    drawn = picture.draw(Topology((Cell(0, 1024, cpus=cpus),)), [], Rules())
    assert "  socket 1\n  ┌ core 0 ┬ 1 ──┐\n  │ 2 .    │ 3 . │\n" in drawn


def test_a_cell_may_have_cpus_only():
    drawn = picture.draw(Topology((Cell(0, 0, cpus=(Cpu.bare(3),)),)), [], Rules())
    assert "NUMA cell 0: CPU 3, no memory\n" in drawn


@pytest.mark.parametrize(
    ("kinds", "headings"),
    [
        ([(0, None)], []),
        ([(0, None), (1, None)], ["socket 0", "socket 1"]),
        (
            [(0, PERFORMANCE), (0, EFFICIENCY), (0, None)],
            ["performance cores", "efficiency cores", "cores of an unknown type"],
        ),
        (
            [(0, PERFORMANCE), (1, PERFORMANCE), (1, EFFICIENCY)],
            [
                "socket 0, performance cores",
                "socket 1, performance cores",
                "socket 1, efficiency cores",
            ],
        ),
        ([(0, None), (None, None)], []),
        ([(0, None), (1, None), (None, None)], ["socket 0", "socket 1", "no socket known"]),
    ],
)
def test_cores_that_differ_have_headings(kinds, headings):
    cpus = tuple(
        Cpu(n, socket, 0, n, CpuSet([n]), True, core_type=kind)
        for n, (socket, kind) in enumerate(kinds)
    )
    drawn = picture.draw(Topology((Cell(0, 1024, cpus=cpus),)), [], Rules())
    lines = drawn.splitlines()
    assert [
        line.strip() for line in lines if "socket" in line or "cores" in line.split()
    ] == headings


def test_guests_that_exceed_the_space_of_a_cpu_are_listed_below():
    drawn = picture.draw(host(1, 1, 1), [guest(n, "0:0") for n in range(28)], Rules())
    assert "│ 0 a+b+26 more │" in drawn
    listed = drawn.partition("CPUs that guests share\n")[2]
    assert re.sub(r"\s+", " ", listed).endswith("y, z, aa, ab")


def test_control_sequences_of_a_terminal_are_not_written():
    drawn = picture.draw(host(1, 1, 1), [guest(1, name="a\x1b[2J\u202eb")], Rules())
    assert r"a\x1b[2J\u202eb" in drawn


def test_a_terminal_without_box_characters_gets_ascii():
    drawn = picture.ascii_only(picture.draw(*EIGHT_CELLS))
    assert drawn.isascii()
    assert "+ cores 0-1 " in drawn
    assert "?" not in drawn


def test_violations_are_listed_below():
    violations = [
        "CPU 1 is offline",
        "instance x\x1b is pinned to " + ",".join(map(str, range(99))),
    ]
    drawn = picture.draw(*LAPTOP, 80, violations=violations)
    listed = drawn.partition("\n\nViolations\n")[2]
    assert listed.startswith("  CPU 1 is offline\n  instance x\\x1b is pinned to 0,1,2,")
    assert max(len(line) for line in listed.splitlines()) <= 80


def test_a_width_without_room_is_an_error():
    with pytest.raises(ValueError, match="72 columns"):
        picture.draw(*LAPTOP, width=71)


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([4], "4"),
        ([4, 5], "4-5"),
        ([0, 1, 2, 3, 8, 9], "0-3,8-9"),
        ([0, 2, 4, 6], "0,2..6"),
        ([0, 2, 4], "0,2,4"),
        ([0, 5, 6, 7, 20], "0,5-7,20"),
        ([0, 1, 3, 5, 7], "0-1,3,5,7"),
    ],
)
def test_ids_are_written_in_short(ids, text):
    assert ",".join(spans(ids)) == text


@given(st.sets(st.integers(0, 99)).map(sorted))
def test_ids_in_short_form_have_the_same_meaning(ids):
    assert _read(",".join(spans(ids))) == ids


cpusets = st.frozensets(st.integers(0, 40), min_size=1).map(CpuSet)


@st.composite
def topologies(draw):
    """Draw any hosts, also such as do not exist."""
    sockets = st.integers(0, 1)
    numbers = draw(st.lists(st.integers(0, 40), unique=True, max_size=40))
    cpus = [
        Cpu(n, None, None, None, CpuSet([n]), False)
        if draw(st.integers(0, 9)) == 0
        else Cpu(
            n,
            draw(sockets),
            0,
            draw(st.integers(0, 5)),
            draw(cpusets),
            draw(st.booleans()),
            isolated=draw(st.booleans()),
            core_type=draw(st.none() | st.sampled_from([PERFORMANCE, EFFICIENCY])),
        )
        for n in numbers
    ]
    cells = draw(st.integers(1, 4))
    caches = draw(
        st.lists(
            st.builds(Cache, st.integers(2, 3), st.just("both"), st.integers(0, 10**6), cpusets),
            max_size=4,
        )
    )
    return Topology(
        tuple(
            Cell(
                id=n,
                memory_kib=draw(st.integers(0, 1 << 34)),
                free_kib=draw(st.none() | st.integers(0, 1 << 34)),
                distances={other: draw(st.integers(10, 254)) for other in range(cells)},
                cpus=tuple(sorted(cpus[n : len(cpus) : cells + 1], key=lambda cpu: cpu.id)),
                caches=tuple(caches),
            )
            for n in range(cells)
        ),
        tuple(sorted(cpus[cells : len(cpus) : cells + 1], key=lambda cpu: cpu.id)),
    )


guests = st.builds(
    guest,
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(0, 300), cpusets), max_size=8).map(
        lambda pins: ";".join(f"{vcpu}:{cpus}" for vcpu, cpus in pins)
    ),
    name=st.text(min_size=1, max_size=40),
    nova=st.booleans(),
    cpuset=st.none() | cpusets.map(str),
    nodes=st.none() | st.just("0-1"),
)
rules = st.builds(
    Rules,
    allowed_cpus=st.none() | cpusets,
    reserved_cpus=cpusets,
    dedicated_cpus=cpusets,
    allowed_nodes=st.none() | st.just(CpuSet([0])),
)
widths = st.integers(picture.WIDTH_MIN, 200)


@settings(max_examples=examples(60))
@given(topologies(), st.lists(guests, max_size=40), rules, widths)
def test_any_host_fits_and_is_drawn_completely(topology, occupants, rules, width):
    drawn = picture.draw(topology, occupants, rules, width)
    assert max(columns(line) for line in drawn.splitlines()) <= width
    assert sorted(_drawn_cpus(drawn)) == [cpu.id for cpu in topology.cpus]
    listed = drawn.splitlines()
    for occupant in occupants:
        assert any(occupant.instance_uuid in line for line in listed)


def _drawn_cpus(drawn):
    """Read back the ids of the CPUs in the boxes."""
    rows = [line for line in drawn.splitlines() if line.lstrip().startswith("│")]
    boxes = [box.split() for row in rows for box in re.split("[│║]", row) if box.strip()]
    return [number for box in boxes for number in _read(box[0])]


def _read(text):
    """Read ids as the picture writes them."""
    ids = []
    for item in re.findall(r"(\d+),(\d+)\.\.(\d+)|(\d+)-(\d+)|(\d+)", text):
        first, second, end, low, high, single = (int(part or -1) for part in item)
        if end >= 0:
            ids += range(first, end + 1, second - first)
        elif high >= 0:
            ids += range(low, high + 1)
        else:
            ids.append(single)
    return ids
