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

"""The cpuset: a set of CPU ids, and its written form ``5-6,9-11,^10``.

The same form serves host CPUs, a guest's vCPUs and iothreads, and NUMA nodes. The cost of a set
depends on the number of its runs, not on its ids.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import chain, pairwise
import operator
from typing import Any, NamedTuple

from kongming import exception


@dataclass(frozen=True, slots=True)
class Ids:
    """A kind of ids.

    :ivar noun: names one of them in errors.
    :ivar largest: the largest that is accepted.
    """

    noun: str
    largest: int


#: Linux has at most 8192 CPUs (NR_CPUS of x86 with MAXSMP).
MAX_ID = 8191
CPU = Ids("CPU", MAX_ID)
#: KVM ends at 4096 vCPUs (KVM_MAX_NR_VCPUS), and so do QEMU's machines (max_cpus of q35).
VCPU = Ids("vCPU", 4095)
#: libvirt accepts any positive unsigned int; no guest has more iothreads than a host has CPUs.
IOTHREAD = Ids("iothread", MAX_ID)
#: Linux has at most 1024 NUMA nodes (NODES_SHIFT is at most 10).
NODE = Ids("node", 1023)

# ASCII only: by default strip() and isdigit() accept other scripts' white space and digits.
SPACE = " \t\n\r\f\v"
_QUICK = 8
_SHOWN = 40
_LISTED = 80


class CpuSet(Set[int]):
    """An immutable set of ids (integers from 0).

    It compares and combines with other sets as :class:`frozenset` does, but has other hashes;
    iteration is in ascending order; ``str()`` returns the shortest written form that has no
    exclusions, which :meth:`parse` reads back.
    """

    __slots__ = ("_edges",)

    # Where a run begins, the id after its end, where the next one begins ...: ascending.
    _edges: tuple[int, ...]

    def __init__(self, ids: Iterable[int] = ()) -> None:
        if type(ids) is CpuSet:
            self._edges = ids._edges
        elif isinstance(ids, range) and ids.step == 1:
            self._edges = (ids.start, ids.stop) if ids else ()
        else:
            # Inside a run, each id is also a successor; what remains are the edges.
            there = frozenset(ids)
            self._edges = tuple(sorted(there ^ {each + 1 for each in there}))

    @classmethod
    def of_runs(cls, runs: Iterable[range]) -> CpuSet:
        """Return the set of all ids of runs, which may overlap; their step is 1."""
        edges: list[int] = []
        for start, stop in sorted((run.start, run.stop) for run in runs if run):
            if edges and start <= edges[-1]:
                edges[-1] = max(edges[-1], stop)
            else:
                edges += (start, stop)
        return cls._of_edges(edges)

    @classmethod
    def union(cls, sets: Iterable[CpuSet]) -> CpuSet:
        """Return the set of all ids of several sets."""
        sets = list(sets)
        if len(sets) == 1:
            # As most guests have one set of CPUs, which takes a fraction of the time.
            return cls(sets[0])
        return cls.of_runs(chain.from_iterable(each.runs() for each in sets))

    @classmethod
    def parse(cls, text: str, *, offset: int = 0, of: Ids = CPU) -> CpuSet:
        """Read the written form.

        :param text: items separated by commas: ``N``, ``N-M`` (N ≤ M), ``^N``, ``^N-M``. ASCII
            white space around items and signs is ignored; exclusions may be anywhere.
        :param offset: where ``text`` begins in a longer value, in characters: added to the
            positions in errors.
        :raises RequestInvalid: naming the item and its position (the first character is position
            1).
        """
        if len(text) < _QUICK and text.isascii() and text.isdigit():
            # Most cpusets are a single id, which takes a fraction of the time.
            cpu = int(text)
            if cpu <= of.largest:
                return cls._of_edges((cpu, cpu + 1))
        included: list[range] = []
        excluded: list[range] = []
        for item in items(text, offset, of):
            excludes = item.body.startswith("^")
            ids = item.read(item.body[excludes:], "N, N-M, ^N and ^N-M")
            (excluded if excludes else included).append(ids)
        if not included:
            raise exception.RequestInvalid(
                f"{shown(text)} at position {offset + 1} only excludes: name the {of.noun}s to "
                "exclude from, as in '5-11,^10'"
            )
        left = cls.of_runs(included)
        if excluded:
            left -= cls.of_runs(excluded)
        if not left:
            raise exception.RequestInvalid(
                f"{shown(text)} at position {offset + 1} is empty once its exclusions are taken "
                f"out: leave at least one {of.noun}"
            )
        return left

    @classmethod
    def from_cpumap(cls, cpumap: Sequence[bool]) -> CpuSet:
        """Read libvirt's form: a sequence with one truth value for each CPU."""
        there = pairwise((False, *cpumap, False))
        return cls._of_edges(cpu for cpu, (before, now) in enumerate(there) if before != now)

    @classmethod
    def _of_edges(cls, edges: Iterable[int]) -> CpuSet:
        made = cls.__new__(cls)
        made._edges = tuple(edges)
        return made

    def cpumap(self, size: int) -> tuple[bool, ...]:
        """Return libvirt's form for a host with ``size`` CPUs."""
        cpumap = [False] * size
        for run in self.runs():
            there = run[: max(0, size - run.start)]
            cpumap[there.start : there.stop] = [True] * len(there)
        return tuple(cpumap)

    def runs(self) -> list[range]:
        """Return the runs of consecutive ids, in ascending order."""
        return list(map(range, self._edges[::2], self._edges[1::2]))

    def __contains__(self, cpu: object) -> bool:
        return isinstance(cpu, int) and bool(bisect_right(self._edges, cpu) % 2)

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self.runs())

    def __len__(self) -> int:
        return sum(self._edges[1::2]) - sum(self._edges[::2])

    def __hash__(self) -> int:
        return hash(self._edges)

    def __eq__(self, other: object) -> bool:
        if type(other) is CpuSet:
            return self._edges == other._edges
        if isinstance(other, Set):
            return len(self) == len(other) and all(each in self for each in other)
        return NotImplemented

    def __le__(self, other: Set[Any]) -> bool:
        return not self - other

    def __ge__(self, other: Set[Any]) -> bool:
        return not CpuSet(other) - self

    def __and__(self, other: Iterable[Any]) -> CpuSet:
        return self._combined(other, operator.and_)

    def __or__(self, other: Iterable[Any]) -> CpuSet:
        return self._combined(other, operator.or_)

    def __sub__(self, other: Iterable[Any]) -> CpuSet:
        return self._combined(other, operator.gt)

    def __xor__(self, other: Iterable[Any]) -> CpuSet:
        return self._combined(other, operator.ne)

    def isdisjoint(self, other: Iterable[Any]) -> bool:
        return not self & other

    def _combined(self, other: Iterable[Any], keep: Callable[[int, int], int]) -> CpuSet:
        """Return the set of the ids for which ``keep`` is true.

        :param keep: gets 1 or 0 for whether an id is in this set, and in the other one.
        """
        mine, others = self._edges, CpuSet(other)._edges
        edges: list[int] = []
        for edge in sorted({*mine, *others}):
            included = keep(bisect_right(mine, edge) % 2, bisect_right(others, edge) % 2)
            if included != len(edges) % 2:
                edges.append(edge)
        return CpuSet._of_edges(edges)

    def __str__(self) -> str:
        return ",".join(
            f"{run.start}-{run[-1]}" if len(run) > 1 else str(run.start) for run in self.runs()
        )

    def __repr__(self) -> str:
        return f"CpuSet({str(self)!r})"


class Item(NamedTuple):
    """One item of a list separated by commas.

    :ivar text: as it was written.
    :ivar position: of its first character.
    :ivar of: the kind of its ids.
    """

    text: str
    position: int
    of: Ids

    @property
    def body(self) -> str:
        """The text without the white space around it."""
        return self.text.strip(SPACE)

    def read(self, span: str, forms: str) -> range:
        """Read ``N`` or ``N-M``.

        :param forms: the accepted forms, for the error.
        :raises RequestInvalid: if it is neither.
        """
        first, dash, last = span.partition("-")
        numbers = [self.number(each, forms) for each in ((first, last) if dash else (first,))]
        begin, end = numbers[0], numbers[-1]
        if begin > end:
            raise self.refused(f"runs backwards: write {end}-{begin}")
        return range(begin, end + 1)

    def number(self, text: str, forms: str) -> int:
        """Read a number.

        :raises RequestInvalid: if it is not a number, or above the largest.
        """
        digits = text.strip(SPACE)
        if not (digits.isascii() and digits.isdigit()):
            raise self.refused(f"is not one of {forms}")
        # The digits are counted first: int() of a very long text is slow, and raises an error of
        # its own.
        digits = digits.lstrip("0") or "0"
        if len(digits) > len(str(self.of.largest)) or int(digits) > self.of.largest:
            raise self.refused(f"has an id above {self.of.largest}, the largest")
        return int(digits)

    def refused(self, why: str) -> exception.RequestInvalid:
        """Return the refusal that names this item."""
        return exception.RequestInvalid(
            f"item {shown(self.text)} at position {self.position} {why}"
        )


def items(text: str, offset: int, of: Ids) -> Iterator[Item]:
    """Yield the items of a list separated by commas.

    :raises RequestInvalid: if an item is empty.
    """
    position = offset + 1
    for each in text.split(","):
        item = Item(each, position, of)
        if not item.body:
            raise exception.RequestInvalid(
                f"empty item at position {position}: remove the superfluous comma or name a "
                f"{of.noun}"
            )
        yield item
        position += len(each) + 1


def shown(text: str) -> str:
    """Quote a piece of a request for a message: ASCII, short, on one line."""
    # Cut after quoting: an escape may be ten times as long as its character.
    quoted = ascii(text[: _SHOWN + 1])
    return quoted if len(quoted) <= _SHOWN + 2 else f"{quoted[:_SHOWN]}...{quoted[0]}"


def listed(ids: object) -> str:
    """Return the written form of ids for a message; a long list is cut."""
    text = str(ids)
    return text if len(text) <= _LISTED else f"{text[: text.rindex(',', 0, _LISTED)]},..."


def parse_ids(text: str) -> CpuSet:
    """Read a list of ids such as ``0-3,8``, as snapshots and the kernel have it.

    It may be empty; some kernels write ``(null)`` then.
    """
    text = text.strip()
    return CpuSet() if text in ("", "(null)") else CpuSet.parse(text)
