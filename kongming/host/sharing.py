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

"""Who shares what: the CPUs, and the cores, that several guests are pinned to.

Functions without side effects. Guests are bits of a number, as they come: what all of this
costs grows with the guests, with the runs of ids in their pins and with the CPUs, and not
with the product of any two of these.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import pairwise

from kongming.allocation.cpuset import CpuSet

#: CPUs, and the guests there.
Part = tuple[CpuSet, int]

# There may be as many groups as CPUs, with all guests in each of them: if they are about more
# guests than this, all is told as one.
_TOLD_MAX = 10_000


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
    """Return the CPUs that several guests are pinned to, those together that the same share."""
    groups: dict[int, list[int]] = {}
    for cpu, guests in seats.items():
        if guests.bit_count() > 1:
            groups.setdefault(guests, []).append(cpu)
    parts = [(CpuSet(cpus), guests) for guests, cpus in groups.items()]
    return parts if _told(groups) <= _TOLD_MAX else [_one(parts)]


def shared_cores(seats: Mapping[int, int], cores: Iterable[CpuSet]) -> list[tuple[Part, ...]]:
    """Return the cores whose CPUs different guests are pinned to, alike ones together.

    Guests that share all of these CPUs are not meant: they share CPUs, not only cores.

    :returns: for each group of cores its CPUs by the guests there; of more groups than can be
        told, one part with all.
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
    if sum(map(_told, groups)) <= _TOLD_MAX:
        return found
    return [(_one([part for parts in found for part in parts]),)]


def _told(groups: Iterable[int]) -> int:
    return sum(guests.bit_count() for guests in groups)


def _one(parts: Collection[Part]) -> Part:
    all_guests = 0
    for _cpus, guests in parts:
        all_guests |= guests
    return CpuSet.union(cpus for cpus, _guests in parts), all_guests
