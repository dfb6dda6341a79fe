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

The same form serves host CPUs, a guest's vCPUs and NUMA nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from itertools import pairwise
import re

from kongming import exception

#: The largest id that is accepted: Linux has at most 8192 CPUs (NR_CPUS).
MAX_ID = 8191

# ASCII only: ``\s``, ``\d`` and int() would also take other scripts' white
# space and digits.
_SPACE = " \t\n\r\f\v"
_ITEM = re.compile(
    rf"[{_SPACE}]*(?P<exclude>\^)?[{_SPACE}]*(?P<first>[0-9]+)"
    rf"(?:[{_SPACE}]*-[{_SPACE}]*(?P<last>[0-9]+))?[{_SPACE}]*"
)
_SHOWN = 40


class CpuSet(Set[int]):
    """An immutable set of ids (integers from 0 to :data:`MAX_ID`).

    It compares and combines with other sets as :class:`frozenset` does;
    iteration is in ascending order; ``str()`` gives the shortest written
    form, which :meth:`parse` reads back.
    """

    __slots__ = ("_ids",)

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self._ids = frozenset(ids)

    @classmethod
    def parse(cls, text: str, *, offset: int = 0, noun: str = "CPU") -> CpuSet:
        """Read the written form.

        :param text: items separated by commas: ``N``, ``N-M`` (N ≤ M),
            ``^N``, ``^N-M``. ASCII white space around items and signs is
            ignored; exclusions count wherever they stand.
        :param offset: where ``text`` begins in a longer value, in
            characters: added to the positions in errors.
        :param noun: what the ids are of, for the errors.
        :raises RequestInvalid: naming the item and its position (the first
            character is position 1).
        """
        included: set[int] = set()
        excluded: set[int] = set()
        includes = False
        position = offset
        for item in text.split(","):
            first, last, exclude = _parse_item(item, position + 1, noun)
            (excluded if exclude else included).update(range(first, last + 1))
            includes |= not exclude
            position += len(item) + 1
        if not includes:
            raise exception.RequestInvalid(
                f"{shown(text)} at position {offset + 1} only excludes: name the {noun}s to "
                "exclude from, as in '5-11,^10'"
            )
        if not included - excluded:
            raise exception.RequestInvalid(
                f"{shown(text)} at position {offset + 1} is empty once its exclusions are taken "
                f"out: leave at least one {noun}"
            )
        return cls(included - excluded)

    @classmethod
    def from_cpumap(cls, cpumap: Sequence[bool]) -> CpuSet:
        """Read libvirt's form: a sequence with one truth value for each CPU."""
        return cls(cpu for cpu, there in enumerate(cpumap) if there)

    def cpumap(self, size: int) -> tuple[bool, ...]:
        """Give libvirt's form for a host of ``size`` CPUs."""
        return tuple(cpu in self._ids for cpu in range(size))

    def __contains__(self, cpu: object) -> bool:
        return cpu in self._ids

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._ids))

    def __len__(self) -> int:
        return len(self._ids)

    def __hash__(self) -> int:
        return hash(self._ids)

    def __str__(self) -> str:
        ids = list(self)
        starts = ids[:1] + [b for a, b in pairwise(ids) if b != a + 1]
        ends = [a for a, b in pairwise(ids) if b != a + 1] + ids[-1:]
        return ",".join(
            f"{start}-{end}" if start != end else str(start)
            for start, end in zip(starts, ends, strict=True)
        )

    def __repr__(self) -> str:
        return f"CpuSet({str(self)!r})"


def shown(text: str) -> str:
    """Quote a piece of a request for a message: ASCII, short, on one line."""
    # Cut after quoting: an escape may be ten times as long as its character.
    quoted = ascii(text[: _SHOWN + 1])
    return quoted if len(quoted) <= _SHOWN + 2 else f"{quoted[:_SHOWN]}...{quoted[0]}"


def _parse_item(item: str, position: int, noun: str) -> tuple[int, int, bool]:
    """Read one item: the first and last id, and whether it excludes them."""
    where = f"item {shown(item)} at position {position}"
    if not item.strip(_SPACE):
        raise exception.RequestInvalid(
            f"empty item at position {position}: remove the superfluous comma or name a {noun}"
        )
    match = _ITEM.fullmatch(item)
    if match is None:
        raise exception.RequestInvalid(f"{where} is none of N, N-M, ^N and ^N-M")
    # The digits are counted first: int() of a very long text is slow, and
    # refused by Python with an error of its own.
    numbers = [number.lstrip("0") or "0" for number in match.group("first", "last") if number]
    if any(len(number) > len(str(MAX_ID)) or int(number) > MAX_ID for number in numbers):
        raise exception.RequestInvalid(f"{where} names an id above {MAX_ID}, the largest there is")
    first, last = int(numbers[0]), int(numbers[-1])
    if first > last:
        raise exception.RequestInvalid(f"{where} runs backwards: write {last}-{first}")
    return first, last, match["exclude"] is not None
