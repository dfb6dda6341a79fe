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

"""The host's topology: NUMA cells, their memory and caches, sockets, cores, CPUs.

Values of one moment, without any I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from kongming.allocation.cpuset import CpuSet, parse_ids

#: The types of cores, if a host has more than one.
PERFORMANCE = "performance"
EFFICIENCY = "efficiency"


@dataclass(frozen=True, slots=True)
class Cpu:
    """One host CPU (a hardware thread).

    :ivar socket: None, as ``die`` and ``core``, if unknown, as mostly of an offline CPU.
    :ivar siblings: the CPUs of the same core that are online, and itself.
    :ivar isolated: whether the kernel leaves it out when it spreads threads over CPUs.
    :ivar core_type: :data:`PERFORMANCE` or :data:`EFFICIENCY`; None if all cores are alike, or
        if unknown.
    :ivar capacity: its relative performance, as the kernel rates it: 1024 is the host's
        largest; None if the kernel does not rate it.
    """

    id: int
    socket: int | None
    die: int | None
    core: int | None
    siblings: CpuSet
    online: bool
    isolated: bool = False
    core_type: str | None = None
    capacity: int | None = None

    @classmethod
    def bare(cls, number: int, *, online: bool = False) -> Cpu:
        """Return a CPU of which only its id is known, and whether it is online."""
        return cls(number, None, None, None, CpuSet([number]), online)

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "socket": self.socket,
            "die": self.die,
            "core": self.core,
            "siblings": str(self.siblings),
            "online": self.online,
            "isolated": self.isolated,
            "core_type": self.core_type,
            "capacity": self.capacity,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Cpu:
        """Read what :meth:`to_json` returns."""
        return cls(
            id=value["id"],
            socket=value["socket"],
            die=value["die"],
            core=value["core"],
            siblings=parse_ids(value["siblings"]) or CpuSet([value["id"]]),
            online=value["online"],
            isolated=value.get("isolated", False),
            core_type=value.get("core_type"),
            capacity=value.get("capacity"),
        )


#: Caches of lower levels belong to one core or a few.
LEAST_CACHE_LEVEL = 3


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache, and the CPUs that share it.

    :ivar kind: ``both``, ``data`` or ``code``.
    """

    level: int
    kind: str
    size_kib: int
    cpus: CpuSet

    def to_json(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "kind": self.kind,
            "size_kib": self.size_kib,
            "cpus": str(self.cpus),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Cache:
        """Read what :meth:`to_json` returns."""
        return cls(
            level=value["level"],
            kind=value["kind"],
            size_kib=value["size_kib"],
            cpus=parse_ids(value["cpus"]),
        )


@dataclass(frozen=True, slots=True)
class Cell:
    """A NUMA cell. It may have no CPUs at all.

    :ivar free_kib: None if libvirt's driver does not report it.
    :ivar distances: to each cell, itself included, in the firmware's unit (10 is the cell
        itself); empty if unknown.
    :ivar caches: those that at least one of its CPUs uses.
    """

    id: int
    memory_kib: int
    free_kib: int | None = None
    distances: Mapping[int, int] = field(default_factory=dict)
    cpus: tuple[Cpu, ...] = ()
    caches: tuple[Cache, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "memory_kib": self.memory_kib,
            "free_kib": self.free_kib,
            "distances": {str(cell): value for cell, value in self.distances.items()},
            "cpus": [cpu.to_json() for cpu in self.cpus],
            "caches": [cache.to_json() for cache in self.caches],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Cell:
        """Read what :meth:`to_json` returns."""
        return cls(
            id=value["id"],
            memory_kib=value["memory_kib"],
            free_kib=value["free_kib"],
            distances={int(cell): each for cell, each in value["distances"].items()},
            cpus=tuple(Cpu.from_json(cpu) for cpu in value["cpus"]),
            caches=tuple(Cache.from_json(cache) for cache in value["caches"]),
        )


@dataclass(frozen=True, slots=True)
class Topology:
    """The host. Its CPUs are the present ones; the ids of CPUs and cells may have gaps.

    :ivar cells: at least one; a host without NUMA has one cell, 0.
    :ivar unassigned: CPUs whose cell is unknown, as mostly of offline CPUs.
    """

    cells: tuple[Cell, ...]
    unassigned: tuple[Cpu, ...] = ()

    @property
    def cpus(self) -> tuple[Cpu, ...]:
        """All CPUs, in the order of their ids."""
        return tuple(sorted(self._everywhere(), key=lambda cpu: cpu.id))

    @property
    def cores(self) -> dict[int, CpuSet]:
        """For each CPU, the CPUs of its core."""
        return {cpu.id: cpu.siblings for cpu in self._everywhere()}

    @property
    def shared_cores(self) -> list[CpuSet]:
        """The cores with several CPUs."""
        cores = self.cores.items()
        return [core for cpu, core in cores if len(core) > 1 and next(iter(core)) == cpu]

    @property
    def isolated(self) -> CpuSet:
        """The isolated CPUs."""
        return ids(cpu for cpu in self._everywhere() if cpu.isolated)

    def _everywhere(self) -> Iterator[Cpu]:
        return chain(self.unassigned, *(cell.cpus for cell in self.cells))

    def near_memory(self) -> dict[int, CpuSet]:
        """Return for each cell with CPUs the cells whose memory is near to them.

        That is its own memory, or the nearest one if it has none. Memory without CPUs (CXL, HBM)
        is near to the cells that are nearest to it. If distances are unknown, all that may be near
        counts as near.
        """
        computing = [cell for cell in self.cells if cell.cpus]
        storing = [cell for cell in self.cells if cell.memory_kib] or computing
        stores = {cell.id for cell in storing}
        near = {
            cell.id: {cell.id}
            if cell.id in stores
            else _nearest({other.id: _distance(cell, other) for other in storing})
            for cell in computing
        }
        for cell in storing:
            if not cell.cpus:
                for each in _nearest({other.id: _distance(other, cell) for other in computing}):
                    near[each].add(cell.id)
        return {cell: CpuSet(nodes) for cell, nodes in near.items()}

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON: cpusets in their written form, units in the names."""
        return {
            "cells": [cell.to_json() for cell in self.cells],
            "unassigned_cpus": [cpu.to_json() for cpu in self.unassigned],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Topology:
        """Read what :meth:`to_json` returns."""
        return cls(
            cells=tuple(Cell.from_json(cell) for cell in value["cells"]),
            unassigned=tuple(Cpu.from_json(cpu) for cpu in value["unassigned_cpus"]),
        )


def assemble(
    cells: Iterable[Cell],
    cpus: Iterable[Cpu],
    homes: Mapping[int, int],
    caches: Iterable[Cache],
) -> Topology:
    """Put CPUs and caches into their cells.

    :param cells: without CPUs and caches.
    :param homes: the cell of each CPU, if known.
    :param caches: may contain the same one more than once.
    """
    cells = sorted(cells, key=lambda cell: cell.id)
    cpus = sorted(cpus, key=lambda cpu: cpu.id)
    if len(cells) == 1:
        homes = dict.fromkeys((cpu.id for cpu in cpus), cells[0].id)
    members: dict[int, list[Cpu]] = {cell.id: [] for cell in cells}
    used: dict[int, list[Cache]] = {cell.id: [] for cell in cells}
    unassigned: list[Cpu] = []
    for cpu in cpus:
        members.get(homes.get(cpu.id, -1), unassigned).append(cpu)
    for cache in dict.fromkeys(caches):
        for cell in {homes.get(cpu, -1) for cpu in cache.cpus} & used.keys():
            used[cell].append(cache)
    return Topology(
        tuple(
            replace(cell, cpus=tuple(members[cell.id]), caches=tuple(used[cell.id]))
            for cell in cells
        ),
        tuple(unassigned),
    )


def among(listed: CpuSet, there: Set[int]) -> CpuSet:
    """Return the ids of a list that exist, at the cost of the list."""
    return CpuSet(each for each in listed if each in there)


def ids(cpus: Iterable[Cpu]) -> CpuSet:
    """Return the ids of some CPUs."""
    return CpuSet(cpu.id for cpu in cpus)


def _distance(computing: Cell, storing: Cell) -> int | None:
    """Return how far a cell's CPUs are from another's memory; None if unknown."""
    there = computing.distances.get(storing.id)
    return storing.distances.get(computing.id) if there is None else there


def _nearest(distances: Mapping[int, int | None]) -> set[int]:
    least = min((each for each in distances.values() if each is not None), default=None)
    return {cell for cell, distance in distances.items() if distance in (None, least)}
