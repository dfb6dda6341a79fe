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

Values of one moment; nothing here follows what changes later, and nothing asks
anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kongming.cpuset import CpuSet


@dataclass(frozen=True, slots=True)
class Cpu:
    """One host CPU (a hardware thread).

    :ivar socket: None, as ``die`` and ``core``, if it is not known: so it is
        with a CPU that is offline.
    :ivar siblings: the CPUs of the same core that are online, and itself.
    """

    id: int
    socket: int | None
    die: int | None
    core: int | None
    siblings: CpuSet
    online: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "socket": self.socket,
            "die": self.die,
            "core": self.core,
            "siblings": str(self.siblings),
            "online": self.online,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Cpu:
        """Read what :meth:`to_json` gives."""
        return cls(
            id=value["id"],
            socket=value["socket"],
            die=value["die"],
            core=value["core"],
            siblings=CpuSet.parse(value["siblings"]),
            online=value["online"],
        )


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
        """Read what :meth:`to_json` gives."""
        return cls(
            level=value["level"],
            kind=value["kind"],
            size_kib=value["size_kib"],
            cpus=CpuSet.parse(value["cpus"]),
        )


@dataclass(frozen=True, slots=True)
class Cell:
    """A NUMA cell. It may have no CPUs at all.

    :ivar free_kib: None if libvirt's driver does not tell.
    :ivar distances: to each cell, itself included, in the firmware's measure
        (10 is the cell itself); empty if it is not known.
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
        """Read what :meth:`to_json` gives."""
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
    """The host.

    :ivar cells: at least one; a host without NUMA has one cell, 0.
    :ivar homeless: CPUs of which it is not known to which cell they belong;
        they are offline.
    """

    cells: tuple[Cell, ...]
    homeless: tuple[Cpu, ...] = ()

    @property
    def cpus(self) -> tuple[Cpu, ...]:
        """All CPUs, in the order of their ids."""
        everywhere = [cpu for cell in self.cells for cpu in cell.cpus] + list(self.homeless)
        return tuple(sorted(everywhere, key=lambda cpu: cpu.id))

    def to_json(self) -> dict[str, Any]:
        """Give it as JSON: cpusets in their written form, units in the names."""
        return {
            "cells": [cell.to_json() for cell in self.cells],
            "homeless_cpus": [cpu.to_json() for cpu in self.homeless],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Topology:
        """Read what :meth:`to_json` gives."""
        return cls(
            cells=tuple(Cell.from_json(cell) for cell in value["cells"]),
            homeless=tuple(Cpu.from_json(cpu) for cpu in value["homeless_cpus"]),
        )


def ids(cpus: Iterable[Cpu]) -> CpuSet:
    """Give the ids of some CPUs."""
    return CpuSet(cpu.id for cpu in cpus)
