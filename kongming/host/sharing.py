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

"""Which CPUs, and which cores, several guests are pinned to.

Functions without side effects. A set of guests is an integer with a bit for each guest. The cost
grows with the guests, with the runs of ids in their pins and with the CPUs, not with the product
of any two of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import pairwise

from kongming.allocation.cpuset import CpuSet

#: CPUs, and the guests on them.
Part = tuple[CpuSet, int]

# There may be as many groups as CPUs, with all guests in each of them: if they have more
# members than this, they are merged into one.
_LISTED_MAX = 10_000


def seats(pinned: Iterable[CpuSet]) -> dict[int, int]:
    """Return for each CPU, in ascending order, which guests are pinned to it.

    :param pinned: all CPUs of each guest.
    """
    changes: dict[int, int] = {}
    for number, cpus in enumerate(pinned):
        for run in cpus.runs():
            for edge in (run.start, run.stop):
                changes[edge] = changes.get(edge, 0) ^ 1 << number
    there, found = 0, {}
    for first, end in pairwise(sorted(changes)):
        there ^= changes[first]
        if there:
            found.update(dict.fromkeys(range(first, end), there))
    return found


def numbers(guests: int) -> Iterator[int]:
    """Yield the numbers of guests, in ascending order."""
    while guests:
        lowest = guests & -guests
        yield lowest.bit_length() - 1
        guests ^= lowest


def shared_cpus(seats: Mapping[int, int]) -> list[Part]:
    """Return the CPUs with several guests, grouped by these guests."""
    groups: dict[int, list[int]] = {}
    for cpu, guests in seats.items():
        if guests.bit_count() > 1:
            groups.setdefault(guests, []).append(cpu)
    parts = [(CpuSet(cpus), guests) for guests, cpus in groups.items()]
    return parts if _size(groups) <= _LISTED_MAX else [_merged(parts)]


def shared_cores(seats: Mapping[int, int], cores: Iterable[CpuSet]) -> list[tuple[Part, ...]]:
    """Return the cores whose CPUs different guests are pinned to, grouped by these guests.

    Guests that share all of these CPUs are left out: they share CPUs, not only cores.

    :returns: for each group of cores its CPUs by the guests on them; if there are too many
        groups, one part with all.
    """
    groups: dict[tuple[int, ...], list[list[int]]] = {}
    for core in cores:
        there: dict[int, list[int]] = {}
        for cpu in core:
            if guests := seats.get(cpu):
                there.setdefault(guests, []).append(cpu)
        if len(there) > 1:
            key = tuple(sorted(there, key=lambda guests: there[guests]))
            for cpus, guests in zip(groups.setdefault(key, [[] for _ in key]), key, strict=True):
                cpus += there[guests]
    found = [
        tuple((CpuSet(each), guests) for each, guests in zip(cpus, key, strict=True))
        for key, cpus in groups.items()
    ]
    if sum(map(_size, groups)) <= _LISTED_MAX:
        return found
    return [(_merged([part for parts in found for part in parts]),)]


def _size(groups: Iterable[int]) -> int:
    return sum(guests.bit_count() for guests in groups)


def _merged(parts: Collection[Part]) -> Part:
    all_guests = 0
    for _cpus, guests in parts:
        all_guests |= guests
    return CpuSet.union(cpus for cpus, _guests in parts), all_guests
