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

"""The picture of a host: cells, cores, CPUs, pinned guests and reserved CPUs.

A pure function from values to text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
import functools
import itertools
import string

from kongming.allocation.cpuset import CpuSet
from kongming.host import sharing
from kongming.host.occupant import Occupant
from kongming.host.rules import Rules
from kongming.host.topology import Cell, Cpu, Topology
from kongming.runtime.escaping import escape
from kongming.terminal import cores
from kongming.terminal.text import columns, cut, joined, memory, pad, spans, wrap

WIDTH = 100
#: The least width with room for the table of guests.
WIDTH_MIN = 72

_INDENT = "  "
_NAME_MAX = 24
# The most guests beside a CPU; the list of shared CPUs has all of them.
_LABELS_MAX = 3

_TO_ASCII = str.maketrans("─│║┌┐└┘┬┴╥╨", "-|#+++++++#")

_MARKS = {
    "X": "offline",
    "N": "not allowed",
    "R": "reserved",
    "D": "dedicated by nova.conf",
    "I": "isolated: the kernel does not spread threads over these",
    "S": "shares its core with another guest's CPU",
}
_FREE = "."


def draw(
    topology: Topology,
    occupants: Iterable[Occupant],
    rules: Rules,
    width: int = WIDTH,
    *,
    violations: Sequence[str] = (),
    siblings: CpuSet = CpuSet(),  # noqa: B008
) -> str:
    """Draw a host.

    :param violations: the messages of violations of rules.
    :param siblings: the CPUs of cores that guests share in violation of the rules.
    :param width: of the longest line, in columns; at least :data:`WIDTH_MIN`.
    """
    if width < WIDTH_MIN:
        raise ValueError(f"a picture takes at least {WIDTH_MIN} columns")
    pinned, floating = _sorted(occupants)
    labelled = list(zip(_labels(), pinned, strict=False))
    labelled = [(label + ("" if guest.nova else "*"), guest) for label, guest in labelled]
    labels = [label for label, _guest in labelled]
    seats = sharing.seats(guest.cpus for _label, guest in labelled)
    who = functools.cache(lambda guests: _who(labels, guests))
    marks = {cpu.id: _marks(cpu, rules, siblings) for cpu in topology.cpus}

    def state(cpu: Cpu) -> cores.State:
        there = seats.get(cpu.id, 0)
        return cores.State(marks[cpu.id], who(there) or ("" if marks[cpu.id] else _FREE))

    sections = [
        _summary(topology, [*pinned, *floating], width),
        *(_cell(cell, rules, state, width) for cell in topology.cells),
        _unassigned(topology, state, width),
        _key(topology, marks, seats, labelled, width),
        _pinned(labelled, width),
        _shared(topology, seats, labels, width),
        _floating(floating, width),
        _wrong(violations, width),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section)


def ascii_only(picture: str) -> str:
    """Replace the lines of boxes, and other characters that are not ASCII."""
    return picture.translate(_TO_ASCII).encode("ascii", "replace").decode()


def _sorted(occupants: Iterable[Occupant]) -> tuple[list[Occupant], list[Occupant]]:
    """Return pinned guests, ordered by their CPUs, and floating guests."""
    guests = sorted(occupants, key=lambda guest: (guest.name, guest.instance_uuid))
    pinned = [guest for guest in guests if not guest.floating]
    pinned.sort(key=lambda guest: next(iter(guest.cpus)))
    return pinned, [guest for guest in guests if guest.floating]


def _labels() -> Iterable[str]:
    for length in itertools.count(1):
        for letters in itertools.product(string.ascii_lowercase, repeat=length):
            yield "".join(letters)


def _marks(cpu: Cpu, rules: Rules, siblings: CpuSet) -> str:
    holds = {
        "X": not cpu.online,
        "N": rules.allowed_cpus is not None and cpu.id not in rules.allowed_cpus,
        "R": cpu.id in rules.reserved_cpus,
        "D": cpu.id in rules.dedicated_cpus,
        "I": cpu.isolated,
        "S": cpu.id in siblings,
    }
    return "".join(mark for mark, does in holds.items() if does)


def _who(labels: Sequence[str], guests: int) -> str:
    count = guests.bit_count()
    shown = count if count <= _LABELS_MAX else _LABELS_MAX - 1
    named = [labels[number] for number in itertools.islice(sharing.numbers(guests), shown)]
    return "+".join([*named, f"{count - shown} more"] if count > shown else named)


def _summary(topology: Topology, guests: Sequence[Occupant], width: int) -> list[str]:
    cpus = topology.cpus
    offline = sum(not cpu.online for cpu in cpus)
    floating = sum(guest.floating for guest in guests)
    words = [
        _count(len(cpus), "CPU") + (f" ({offline} offline)" if offline else ""),
        _count(len(topology.cells), "NUMA cell"),
        _memory(
            sum(cell.memory_kib for cell in topology.cells),
            [cell.free_kib for cell in topology.cells],
        ),
        _count(len(guests), "guest") + (f" ({floating} floating)" if floating else ""),
    ]
    return wrap(joined(words), width)


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _memory(total: int, free: Sequence[int | None]) -> str:
    if not total:
        return "no memory"
    known = [kib for kib in free if kib is not None]
    return f"{memory(total)} of memory" + (f" ({memory(sum(known))} free)" if known else "")


def _cell(cell: Cell, rules: Rules, state: Callable[[Cpu], cores.State], width: int) -> list[str]:
    words = [_memory(cell.memory_kib, [cell.free_kib])]
    if rules.allowed_nodes is not None and cell.id not in rules.allowed_nodes:
        words.append("memory not allowed")
    words += [*_caches(cell), *_distances(cell)]
    head = f"NUMA cell {cell.id}: "
    pieces = [*_cpu_pieces(cell.cpus), *joined(words)]
    lines = wrap(pieces, width, head, " " * len(head))
    return lines + [_INDENT + line for line in cores.draw(cell, state, width - len(_INDENT))]


def _cpu_pieces(cpus: Sequence[Cpu]) -> list[str]:
    if not cpus:
        return ["no CPUs, "]
    name = "CPU" if len(cpus) == 1 else "CPUs"
    *others, last = joined(spans([cpu.id for cpu in cpus]), ",")
    return [f"{name} ", *others, f"{last}, "]


def _caches(cell: Cell) -> list[str]:
    sizes = [cache.size_kib for cache in cell.caches if cache.level == 3]
    return [
        "L3 " + (f"{sizes.count(size)} x " if sizes.count(size) > 1 else "") + memory(size)
        for size in dict.fromkeys(sizes)
    ]


def _distances(cell: Cell) -> list[str]:
    cells: dict[int, list[int]] = {}
    for other, distance in sorted(cell.distances.items()):
        if other != cell.id:
            cells.setdefault(distance, []).append(other)
    return [
        f"distance {distance} to cell{'s' if len(others) > 1 else ''} {CpuSet(others)}"
        for distance, others in sorted(cells.items())
    ]


def _unassigned(topology: Topology, state: Callable[[Cpu], cores.State], width: int) -> list[str]:
    if not topology.unassigned:
        return []
    cell = Cell(-1, 0, cpus=topology.unassigned)
    return [
        "CPUs of an unknown NUMA cell:",
        *(_INDENT + line for line in cores.draw(cell, state, width - len(_INDENT))),
    ]


def _key(
    topology: Topology,
    marks: Mapping[int, str],
    seats: Mapping[int, int],
    labelled: Sequence[tuple[str, Occupant]],
    width: int,
) -> list[str]:
    """Explain the marks in this picture."""
    used = set("".join(marks.values()))
    there = [seats.get(cpu, 0) for cpu in marks]
    seated = functools.reduce(int.__or__, set(there), 0)
    words = [f"{mark} {meaning}" for mark, meaning in _MARKS.items() if mark in used]
    if any(not guests and not marks[cpu] for cpu, guests in zip(marks, there, strict=True)):
        words.append(f"{_FREE} free: no guest is pinned to it")
    if any(guests.bit_count() > 1 for guests in there):
        words.append("a+b guests share the CPU")
    if any(not labelled[number][1].nova for number in sharing.numbers(seated)):
        words.append("* not Nova's")
    if any(sum(cache.level == 3 for cache in cell.caches) > 1 for cell in topology.cells):
        words.append("║ border of an L3 cache")
    return wrap(joined(words, "   "), width)


def _pinned(labelled: Sequence[tuple[str, Occupant]], width: int) -> list[str]:
    if not labelled:
        return []
    lines = ["Guests with pinned vCPUs (vCPUs:CPUs)"]
    longest = max(columns(label) for label, _ in labelled)
    names = _name_width(guest for _, guest in labelled)
    for label, guest in labelled:
        pins = _pins(guest)
        head = _head(pad(label, longest), guest, names)
        lines += _guest(head, [*pins, *_remarks(guest)], width, longest)
    return lines


def _pins(guest: Occupant) -> list[str]:
    """Return the pins in the form of metadata, in pieces for :func:`wrap`."""
    vcpus: dict[CpuSet, list[int]] = {}
    for vcpu, cpus in sorted(guest.pins.items()):
        vcpus.setdefault(cpus, []).append(vcpu)
    entries = [f"{CpuSet(those)}:{cpus}" for cpus, those in vcpus.items()]
    return [piece for entry in joined(entries, "; ") for piece in _at_commas(entry)]


def _at_commas(text: str) -> list[str]:
    return joined(text.split(","), ",")


def _remarks(guest: Occupant) -> list[str]:
    remarks = []
    if guest.memory_nodes is not None:
        remarks.append(f" (memory {guest.memory_nodes})")
    if not guest.nova:
        remarks.append(" (not Nova's)")
    return remarks


def _shared(
    topology: Topology, seats: Mapping[int, int], labels: Sequence[str], width: int
) -> list[str]:
    there = {cpu.id: seats[cpu.id] for cpu in topology.cpus if cpu.id in seats}
    lines = ["CPUs that guests share"]
    for cpus, guests in sharing.shared_cpus(there):
        named = [labels[number] for number in sharing.numbers(guests)]
        pieces = [*joined(spans(list(cpus)), ","), ": ", *joined(named)]
        lines += wrap(pieces, width, _INDENT, _INDENT * 2)
    return lines if len(lines) > 1 else []


def _floating(guests: Sequence[Occupant], width: int) -> list[str]:
    if not guests:
        return []
    lines = ["Floating guests: no vCPU is pinned"]
    names = _name_width(guests)
    for guest in guests:
        where = [] if guest.cpuset is None else _at_commas(f"on {guest.cpuset}")
        lines += _guest(_head("", guest, names), [*where, *_remarks(guest)], width, 0)
    return lines


def _wrong(violations: Sequence[str], width: int) -> list[str]:
    if not violations:
        return []
    lines = ["Violations"]
    for violation in violations:
        words = joined(cut(violation, len(violation) * 2).split(" "), " ")
        pieces = [piece for word in words for piece in _at_commas(word)]
        lines += wrap(pieces, width, _INDENT, _INDENT * 2)
    return lines


def _name_width(guests: Iterable[Occupant]) -> int:
    return min(_NAME_MAX, max(columns(escape(guest.name)) for guest in guests))


def _head(label: str, guest: Occupant, names: int) -> str:
    words = [label, escape(guest.instance_uuid), pad(cut(guest.name, names), names)]
    return _INDENT + "  ".join(word for word in words if word) + "  "


def _guest(head: str, pieces: Sequence[str], width: int, label: int) -> list[str]:
    """Return the lines of a guest: beside its name if there is room, otherwise below."""
    room = width - columns(head)
    if columns("".join(pieces)) <= room or room >= width // 3:
        return wrap(pieces, width, head, " " * columns(head))
    indent = _INDENT + " " * (label + len(_INDENT) if label else len(_INDENT))
    return [head.rstrip(), *wrap(pieces, width, indent, indent)]
