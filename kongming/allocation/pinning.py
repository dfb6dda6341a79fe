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

"""The pinning: the host CPUs of the vCPUs, or of the iothreads, of an instance.

Its written form is a cpuset for all of them, or entries separated by ``;``: ``0-1:8-11``, a set
that they share, and the run ``2-63=12-73``, a CPU for each. The cost of a pinning depends on the
length of its written form, not on the number of vCPUs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
import re

from kongming import exception
from kongming.allocation.cpuset import CPU, SPACE, CpuSet, Ids, items, shown

_SIGN = re.compile("[:=]")
_RUN_FORMS = "N, N-M and N-M/S"
_KEPT = Ids("number", 999_999)

# Numbers with a CPU each: first number, first CPU, count, the steps of numbers and CPUs.
_Piece = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Run:
    """Numbers of vCPUs, or iothreads, that have a CPU each.

    :ivar numbers: in the order written.
    :ivar cpus: as many, in the order of the numbers.
    """

    numbers: tuple[range, ...]
    cpus: tuple[range, ...]

    def pairs(self) -> Iterator[tuple[range, range]]:
        """Return the numbers and their CPUs, in pairs of ranges of the same length."""
        remaining = iter(self.cpus)
        cpus = range(0)
        for numbers in self.numbers:
            while numbers:
                cpus = cpus or next(remaining)
                count = min(len(numbers), len(cpus))
                yield numbers[:count], cpus[:count]
                numbers, cpus = numbers[count:], cpus[count:]

    def __str__(self) -> str:
        return f"{_listed(self.numbers)}={_listed(self.cpus)}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Pinning:
    """The host CPUs on which the vCPUs, or the iothreads, of an instance may run.

    Two are equal if they have the same meaning, in whichever form; but interleaved runs, as those
    of siblings, equal only runs that are interleaved alike.

    :ivar every: the cpuset of all of them, or None if they are named.
    :ivar groups: the named ones that share a cpuset, and the cpuset, in ascending order; no two
        have the same cpuset. Those not named stay as they are.
    :ivar runs: the named ones that have a CPU each.
    """

    every: CpuSet | None = None
    groups: tuple[tuple[CpuSet, CpuSet], ...] = ()
    runs: tuple[Run, ...] = ()

    @classmethod
    def of_map(cls, pins: Mapping[int, CpuSet]) -> Pinning:
        """Return the pinning that names them one by one."""
        return cls._of(((CpuSet([number]), cpus) for number, cpus in pins.items()), ())

    @classmethod
    def parse(cls, text: str, of: Ids) -> Pinning:
        """Read the written form.

        :param of: what is pinned.
        :raises RequestInvalid: naming the item and its position.
        """
        if ";" not in text and not _SIGN.search(text):
            return cls(every=CpuSet.parse(text))
        named = _Named(of)
        groups: list[tuple[CpuSet, CpuSet]] = []
        runs: list[Run] = []
        position = 0
        for entry in text.split(";"):
            where = f"item {shown(entry)} at position {position + 1}"
            sign = _SIGN.search(entry)
            if sign is None:
                noun = of.noun.lower()
                raise exception.RequestInvalid(
                    f"{where} is not of the form {noun}s:cpuset or {noun}s=CPUs"
                )
            numbers, cpus = entry[: sign.start()], entry[sign.end() :]
            after = position + sign.end()
            if sign[0] == ":":
                # The CPUs first: a second colon is a mistake in them.
                shared = CpuSet.parse(cpus, offset=after)
                groups.append((CpuSet.parse(numbers, offset=position, of=of), shared))
                named.add(groups[-1][0].runs(), where)
            else:
                runs.append(_read_run(numbers, cpus, position, after, of, where))
                named.add(runs[-1].numbers, where)
            position += len(entry) + 1
        return cls._of(groups, runs)

    @classmethod
    def from_json(cls, value: str | Mapping[str, str], of: Ids | None = None) -> Pinning:
        """Read what :meth:`to_json` returns, or the written form where that is an object.

        :param of: what is pinned; None to read a stored pinning, whatever the present rules are.
        :raises RequestInvalid: as :meth:`parse`.
        """
        if isinstance(value, str):
            return cls.parse(value, of or _KEPT)
        groups = [
            (CpuSet.parse(numbers, of=of or _KEPT), CpuSet.parse(cpus))
            for numbers, cpus in value.items()
        ]
        if of is not None:
            named = _Named(of)
            for text, (numbers, _) in zip(value, groups, strict=True):
                if set(SPACE) & set(text):
                    raise exception.RequestInvalid(f"item {shown(text)} has white space in it")
                named.add(numbers.runs(), f"item {shown(text)}")
        return cls._of(groups, ())

    @classmethod
    def _of(cls, groups: Iterable[tuple[CpuSet, CpuSet]], runs: Iterable[Run]) -> Pinning:
        alike: dict[CpuSet, list[CpuSet]] = {}
        for numbers, cpus in groups:
            alike.setdefault(cpus, []).append(numbers)
        shared = [
            (those[0] if len(those) == 1 else CpuSet.union(those), cpus)
            for cpus, those in alike.items()
        ]
        return cls(
            None, tuple(sorted(shared, key=lambda group: next(iter(group[0])))), tuple(runs)
        )

    def joined(self, other: Pinning, of: Ids) -> Pinning:
        """Return the pinning with the entries of both.

        :raises RequestInvalid: if one is for all, or both name the same number.
        """
        if self.every is not None or other.every is not None:
            raise exception.RequestInvalid(
                f"a cpuset for all {of.noun}s can't be continued: name the {of.noun}s, as in "
                "'0-3:5-6'"
            )
        named = _Named(of)
        for each in (self, other):
            named.add(each._numbers(), "it")
        return Pinning._of((*self.groups, *other.groups), (*self.runs, *other.runs))

    def resolve(self, there: CpuSet) -> dict[int, CpuSet]:
        """Return the cpuset of each named one, of those that exist.

        :param there: those that exist.
        """
        if self.every is not None:
            return dict.fromkeys(there, self.every)
        found = {number: cpus for numbers, cpus in self.groups for number in numbers & there}
        for numbers, cpus in chain.from_iterable(run.pairs() for run in self.runs):
            for known in _within(numbers, there):
                for number, cpu in zip(numbers[known], cpus[known], strict=True):
                    found[number] = CpuSet([cpu])
        return found

    def missing(self, there: CpuSet) -> str:
        """Return a list of the named ones that do not exist; empty if all do.

        :param there: those that exist.
        """
        groups = CpuSet.union(numbers for numbers, _ in self.groups) - there
        left = (_without(each, there) for run in self.runs for each in run.numbers)
        runs = filter(None, chain.from_iterable(left))
        return ",".join(filter(None, (str(groups), _listed(runs))))

    def to_json(self) -> str | dict[str, str]:
        """Return the JSON form: an object ``{numbers: cpuset}``, or the written form.

        It is the latter for all of them, and if there are runs.
        """
        if self.every is not None or self.runs:
            return str(self)
        return {str(numbers): str(cpus) for numbers, cpus in self.groups}

    def __str__(self) -> str:
        if self.every is not None:
            return str(self.every)
        groups = (f"{numbers}:{cpus}" for numbers, cpus in self.groups)
        return ";".join((*groups, *map(str, self.runs)))

    def __repr__(self) -> str:
        return f"Pinning({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pinning):
            return NotImplemented
        mine, others = ((each.every, each.groups, each.runs) for each in (self, other))
        return mine == others or self._meaning() == other._meaning()

    def __hash__(self) -> int:
        return hash(self._meaning())

    def _meaning(self) -> tuple[object, ...]:
        """Return what is equal for all forms of the same pinning."""
        shared = tuple(group for group in self.groups if len(group[1]) > 1)
        return self.every, shared, _canonical(self._pieces())

    def _pieces(self) -> Iterator[_Piece]:
        for numbers, cpus in self.groups:
            if len(cpus) == 1:
                (cpu,) = cpus
                yield from ((run.start, cpu, len(run), 1, 0) for run in numbers.runs())
        for one, other in chain.from_iterable(run.pairs() for run in self.runs):
            yield one.start, other.start, len(one), one.step, other.step

    def _numbers(self) -> Iterator[range]:
        for numbers, _ in self.groups:
            yield from numbers.runs()
        for run in self.runs:
            yield from run.numbers


class _Named:
    """The numbers that a pinning has named so far."""

    def __init__(self, of: Ids) -> None:
        self._of = of
        # A bit for each: a CpuSet of numbers with a step would have an edge for each.
        self._bits = 0

    def add(self, numbers: Iterable[range], where: str) -> None:
        """Add numbers.

        :raises RequestInvalid: if one of them was named before.
        """
        for each in numbers:
            bits = (1 << len(each) * each.step) - 1
            if each.step > 1:
                bits //= (1 << each.step) - 1
            bits <<= each.start
            if again := bits & self._bits:
                noun, number = self._of.noun, (again & -again).bit_length() - 1
                raise exception.RequestInvalid(
                    f"{where} names {noun} {number} again: name each {noun} once"
                )
            self._bits |= bits


def _read_run(numbers: str, cpus: str, begin: int, after: int, of: Ids, where: str) -> Run:
    """Read a run; ``begin`` and ``after`` are where its two lists begin."""
    run = Run(_read_list(numbers, begin, of), _read_list(cpus, after, CPU))
    _Named(CPU).add(run.cpus, where)
    counts = [sum(map(len, each)) for each in (run.numbers, run.cpus)]
    if counts[0] != counts[1]:
        raise exception.RequestInvalid(
            f"{where} names {counts[0]} {of.noun}s and {counts[1]} CPUs: a run has a CPU for each "
            f"{of.noun}"
        )
    return run


def _read_list(text: str, offset: int, of: Ids) -> tuple[range, ...]:
    """Read ids in the order written: ``N``, ``N-M`` and ``N-M/S``, separated by commas."""
    found = []
    for item in items(text, offset, of):
        if item.body.startswith("^"):
            raise item.refused("excludes: a run has no exclusions, list its ids")
        span, slash, step = item.body.partition("/")
        if slash and "-" not in span:
            raise item.refused(f"is not one of {_RUN_FORMS}")
        ids = item.read(span, _RUN_FORMS)
        every = item.number(step, _RUN_FORMS) if slash else 1
        if not every:
            raise item.refused("has a step of 0: the least is 1")
        found.append(ids[::every])
    return tuple(found)


def _listed(ranges: Iterable[range]) -> str:
    """Return the written form that :func:`_read_list` reads."""
    return ",".join(
        str(each.start)
        if len(each) == 1
        else f"{each.start}-{each[-1]}" + (f"/{each.step}" if each.step > 1 else "")
        for each in ranges
    )


def _within(numbers: range, there: CpuSet) -> Iterator[slice]:
    """Yield the slices of ascending numbers that exist, run by run."""
    for run in there.runs():
        begin, end = bisect_left(numbers, run.start), bisect_left(numbers, run.stop)
        if begin < end:
            yield slice(begin, end)


def _without(numbers: range, there: CpuSet) -> Iterator[range]:
    """Yield the parts of ascending numbers that do not exist."""
    begin = 0
    for known in _within(numbers, there):
        yield numbers[begin : known.start]
        begin = known.stop
    yield numbers[begin:]


def _canonical(pieces: Iterable[_Piece]) -> tuple[_Piece, ...]:
    """Join pieces that continue each other, so that the same mapping has the same pieces.

    Interleaved runs keep the pieces that were written.
    """
    found: list[_Piece] = []
    for number, cpu, count, step, cpu_step in sorted(pieces):
        if found:
            first, its_cpu, its_count, *steps = found[-1]
            last = its_count - 1
            gap = number - first - last * steps[0], cpu - its_cpu - last * steps[1]
            if not last or gap == tuple(steps):
                # All of this piece continues the last one, or only its first number does.
                taken = count if gap == (step, cpu_step) else 1
                found[-1] = (first, its_cpu, its_count + taken, *gap)
                number, cpu, count = number + taken * step, cpu + taken * cpu_step, count - taken
        if count:
            found.append(
                (number, cpu, count, step, cpu_step) if count > 1 else (number, cpu, 1, 0, 0)
            )
    return tuple(found)
