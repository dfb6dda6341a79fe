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

"""The cores of a NUMA cell as a strip of boxes, SMT siblings together.

::

    ┌ core 0 ┬ 1 ────┬ 2-15 ─┐
    │  0 R   │  1 a  │  2-15 │
    │ 16 R   │ 17 a  │ 18-31 │
    └────────┴───────┴───────┘
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from kongming.host.topology import Cell, Cpu
from kongming.terminal.text import columns, pad, spans

_ROOM = 2  # the blanks beside a box's content


@dataclass(frozen=True, slots=True)
class State:
    """The text beside a CPU's id: one letter for each mark, and the labels of its guests."""

    marks: str
    labels: str


@dataclass(frozen=True, slots=True)
class _Core:
    """One core: its CPUs that belong to the cell."""

    socket: int | None
    kind: str | None
    number: int | None
    l3: int | None
    threads: tuple[Cpu, ...]
    states: tuple[State, ...]


@dataclass(frozen=True, slots=True)
class _Box:
    """One or more cores in one box: a title, and a row for each thread."""

    title: str
    rows: tuple[str, ...]
    l3: int | None

    def titled(self, *, first: bool) -> str:
        """Return the title; in the first box of a strip it has a noun."""
        if not first or " " in self.title:
            return self.title
        return ("cores " if "-" in self.title else "core ") + self.title

    def width(self, *, first: bool) -> int:
        return _ROOM + max(columns(text) for text in (self.titled(first=first), *self.rows))


def draw(cell: Cell, state: Callable[[Cpu], State], width: int) -> list[str]:
    """Draw the cores of a cell in lines of at most ``width`` columns.

    Each core has a box of its own if they fit into one strip. Otherwise runs of cores with equal
    states share a box.
    """
    lines: list[str] = []
    alike: dict[tuple[int | None, str | None], list[_Core]] = {}
    for core in _cores(cell, state):
        alike.setdefault((core.socket, core.kind), []).append(core)
    for cores in alike.values():
        lines += _heading(cores[0], list(alike))
        boxes = [_box([core]) for core in cores]
        if _strip_width(boxes) > width:
            boxes = [_box(run) for run in _runs(cores)]
        for strip in _strips(boxes, width):
            lines += _draw_strip(strip)
    return lines


def _heading(core: _Core, alike: Sequence[tuple[int | None, str | None]]) -> list[str]:
    """Return the differences between the cores of this strip and the others."""
    words = []
    if any(socket != core.socket for socket, _kind in alike):
        words.append("no socket known" if core.socket is None else f"socket {core.socket}")
    if any(kind != core.kind for _socket, kind in alike):
        words.append("cores of an unknown type" if core.kind is None else f"{core.kind} cores")
    return [", ".join(words)] if words else []


def _cores(cell: Cell, state: Callable[[Cpu], State]) -> list[_Core]:
    threads: dict[int, list[Cpu]] = {}
    ids = {cpu.id for cpu in cell.cpus}
    for cpu in cell.cpus:
        first = next((sibling for sibling in cpu.siblings if sibling in ids), cpu.id)
        threads.setdefault(first, []).append(cpu)
    banks: dict[int, int] = {}
    for number, cache in enumerate(cache for cache in cell.caches if cache.level == 3):
        for each in cache.cpus:
            banks.setdefault(each, number)
    cores = [
        _Core(
            socket=siblings[0].socket,
            kind=siblings[0].core_type,
            number=siblings[0].core,
            l3=banks.get(siblings[0].id),
            threads=tuple(siblings),
            states=tuple(state(cpu) for cpu in siblings),
        )
        for siblings in threads.values()
    ]
    # An offline CPU has no known socket; it is drawn with the others.
    known = {core.socket for core in cores} - {None}
    if len(known) == 1:
        cores = [replace(core, socket=known.copy().pop()) for core in cores]
    return cores


def _runs(cores: Sequence[_Core]) -> Iterator[list[_Core]]:
    """Yield runs of cores with equal states, and ids in equal steps."""
    run: list[_Core] = []
    for core in cores:
        if run and not _continues(run, core):
            yield run
            run = []
        run.append(core)
    if run:
        yield run


def _continues(run: Sequence[_Core], core: _Core) -> bool:
    last = run[-1]
    return (
        (core.states, core.l3) == (last.states, last.l3)
        and (core.number is None) == (last.number is None)
        and (len(run) == 1 or _steps(last, core) == _steps(run[0], run[1]))
    )


def _steps(a: _Core, b: _Core) -> list[int]:
    return [y.id - x.id for x, y in zip(a.threads, b.threads, strict=True)]


def _box(run: Sequence[_Core]) -> _Box:
    ids = [
        ",".join(spans([cpu.id for cpu in cpus]))
        for cpus in zip(*(core.threads for core in run), strict=True)
    ]
    longest = max(len(text) for text in ids)
    marks = max(len(state.marks) for state in run[0].states)
    rows = tuple(
        f"{text:>{longest}} {state.marks:{marks}}{' ' * bool(marks)}{state.labels}".rstrip()
        for text, state in zip(ids, run[0].states, strict=True)
    )
    return _Box(_title(run), rows, run[0].l3)


def _title(run: Sequence[_Core]) -> str:
    numbers = [core.number for core in run if core.number is not None]
    if not numbers:
        return "?"
    if len(numbers) == 1:
        return str(numbers[0])
    if all(b == a + 1 for a, b in pairwise(numbers)):
        return f"{numbers[0]}-{numbers[-1]}"
    return f"{len(run)} cores"


def _strip_width(boxes: Sequence[_Box]) -> int:
    return 1 + sum(box.width(first=n == 0) + 1 for n, box in enumerate(boxes))


def _strips(boxes: Iterable[_Box], width: int) -> Iterator[list[_Box]]:
    strip: list[_Box] = []
    for box in boxes:
        if strip and _strip_width([*strip, box]) > width:
            yield strip
            strip = []
        strip.append(box)
    if strip:
        yield strip


def _draw_strip(boxes: Sequence[_Box]) -> list[str]:
    widths = [box.width(first=n == 0) for n, box in enumerate(boxes)]
    walls = [None not in (a.l3, b.l3) and a.l3 != b.l3 for a, b in pairwise(boxes)]
    height = max(len(box.rows) for box in boxes)
    titles = [f" {box.titled(first=n == 0)} " for n, box in enumerate(boxes)]
    lines = [_line("┌┬╥┐", [_ruled(t, w) for t, w in zip(titles, widths, strict=True)], walls)]
    for row in range(height):
        texts = [box.rows[row] if row < len(box.rows) else "" for box in boxes]
        content = [pad(f" {text}", width) for text, width in zip(texts, widths, strict=True)]
        lines.append(_line("││║│", content, walls))
    lines.append(_line("└┴╨┘", [_ruled("", width) for width in widths], walls))
    return lines


def _ruled(text: str, width: int) -> str:
    return text + "─" * (width - columns(text))


def _line(ends: str, contents: Sequence[str], walls: Sequence[bool]) -> str:
    left, thin, thick, right = list(ends)
    line = left + contents[0]
    for content, wall in zip(contents[1:], walls, strict=True):
        line += (thick if wall else thin) + content
    return line + right
