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

"""The topology of this machine, as its kernel tells it in ``/sys/devices/system``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Set
from dataclasses import dataclass, replace
import functools
import os
from pathlib import Path
import re

from kongming.cpuset import CpuSet
from kongming.hypervisor.files import parse_ids, read_text
from kongming.hypervisor.host import CGROUP, SYSTEM, memory_kib, memory_nodes, node_ids
from kongming.hypervisor.isolation import isolated_cpus
from kongming.hypervisor.topology import (
    EFFICIENCY,
    PERFORMANCE,
    Cache,
    Cell,
    Cpu,
    Topology,
    among,
    assemble,
)

MEMINFO = Path("/proc/meminfo")

_LINK = re.compile(r"node([0-9]+)")
# Those below are of one core or a few; libvirt leaves them out, too.
_LEAST_LEVEL = 3
_KINDS = {"Unified": "both", "Data": "data", "Instruction": "code"}
_KIB = {"K": 1, "M": 1 << 10, "G": 1 << 20}
# Where the kernel has CPUs of several types it has a folder for each type's counters.
_TYPES = {"cpu_core": PERFORMANCE, "cpu_atom": EFFICIENCY, "cpu_lowpower": EFFICIENCY}
# What is less by 5 % or more is clearly less: the kernel's scheduler takes it so, too.
_CLEARLY_LESS = 0.95


def read(system: Path = SYSTEM, cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> Topology:
    """Ask the kernel what the host is made of.

    What changes only when CPUs or nodes come or go is kept until then.

    :raises OSError: if it does not tell.
    """
    shape = _shape(
        str(system),
        read_text(f"{system}/cpu/present"),
        read_text(f"{system}/cpu/online"),
        tuple(node_ids(system)),
        isolated_cpus(system, cgroup),
    )
    storing = memory_nodes(system)
    return replace(
        shape, cells=tuple(_with_memory(cell, system, storing, meminfo) for cell in shape.cells)
    )


@functools.lru_cache(maxsize=1)
def _shape(
    system: str, present: str, online: str, nodes: tuple[int, ...], isolated: CpuSet
) -> Topology:
    """Read all but the memory."""
    there = frozenset(parse_ids(present))
    cores = list(_cores(system, among(parse_ids(online), there)))
    order = _ids(f"{system}/node/online") or nodes
    return assemble(
        [Cell(node, 0, distances=_distances(system, node, order)) for node in nodes or (0,)],
        _cpus(system, there, cores, isolated),
        _homes(system, there, nodes),
        _caches(system, cores, there),
    )


def _with_memory(cell: Cell, system: Path, storing: CpuSet, meminfo: Path) -> Cell:
    folder = system / f"node/node{cell.id}"
    total, free = memory_kib(folder / "meminfo" if folder.exists() else meminfo)
    return replace(cell, memory_kib=total if cell.id in storing else 0, free_kib=free)


def _distances(system: str, node: int, online: Collection[int]) -> dict[int, int]:
    """Return the distances that the kernel tells, in the order of the nodes that are online."""
    told = _text(f"{system}/node/node{node}/distance").split()
    if len(told) != len(online):
        return {}
    # The firmware writes 0 where it knows nothing; libvirt leaves it out, too.
    return {other: int(each) for other, each in zip(online, told, strict=True) if int(each)}


def _homes(system: str, present: Set[int], nodes: Iterable[int]) -> dict[int, int]:
    """Return the node of each CPU, of those that are offline, too, where the kernel tells."""
    homes = {
        cpu: node
        for node in nodes
        for cpu in among(_ids(f"{system}/node/node{node}/cpulist"), present)
    }
    for cpu in present:
        if cpu not in homes:
            # Lists of nodes leave out what is offline; the link of the CPU stays.
            for link in map(_LINK.fullmatch, _names(f"{system}/cpu/cpu{cpu}")):
                if link:
                    homes[cpu] = int(link[1])
    return homes


@dataclass(frozen=True, slots=True)
class _Core:
    """A core, by its CPUs that are online."""

    cpus: CpuSet
    socket: int
    die: int
    number: int
    capacity: int | None

    @property
    def first(self) -> int:
        return next(iter(self.cpus))

    def cpu(self, number: int) -> Cpu:
        """Return one of its CPUs."""
        where = (self.socket, self.die, self.number)
        return Cpu(number, *where, self.cpus, online=True, capacity=self.capacity)


def _cores(system: str, online: CpuSet) -> Iterator[_Core]:
    """Read each core once, by the first of its CPUs."""
    left = set(online)
    for cpu in online:
        if cpu in left:
            siblings = _ids(f"{system}/cpu/cpu{cpu}/topology/thread_siblings_list")
            core = _core(system, cpu, CpuSet([cpu, *among(siblings, left)]))
            left.difference_update(core.cpus)
            yield core


def _core(system: str, cpu: int, cpus: CpuSet) -> _Core:
    folder = f"{system}/cpu/cpu{cpu}"
    # Where there is no such level the kernel has no file, or -1 in it: 0 by libvirt, too.
    socket, die, core = (
        max(0, _number(f"{folder}/topology/{name}") or 0)
        for name in ("physical_package_id", "die_id", "core_id")
    )
    return _Core(cpus, socket, die, core, _number(f"{folder}/cpu_capacity"))


def _cpus(
    system: str, present: Iterable[int], cores: Iterable[_Core], isolated: CpuSet
) -> Iterator[Cpu]:
    types = _types(system, cores)
    found = {cpu: core for core in cores for cpu in core.cpus}
    for cpu in present:
        core = found.get(cpu)
        known = _offline(system, cpu) if core is None else core.cpu(cpu)
        yield replace(known, isolated=cpu in isolated, core_type=types.get(cpu))


def _offline(system: str, cpu: int) -> Cpu:
    """Return a CPU that is offline: most kernels forget where it was."""
    folder = f"{system}/cpu/cpu{cpu}/topology"
    socket, die, core = (
        _number(f"{folder}/{name}") for name in ("physical_package_id", "die_id", "core_id")
    )
    return replace(Cpu.bare(cpu), socket=socket, die=die, core=core)


def _types(system: str, cores: Iterable[_Core]) -> dict[int, str]:
    """Return the type of each core's CPUs; none if all are alike."""
    devices = Path(system).parent
    types = {cpu: kind for name, kind in _TYPES.items() for cpu in _ids(f"{devices}/{name}/cpus")}
    if not types:
        rated = {core: core.capacity for core in cores if core.capacity is not None}
        largest = max(rated.values(), default=0)
        types = {
            cpu: EFFICIENCY if capacity < largest * _CLEARLY_LESS else PERFORMANCE
            for core, capacity in rated.items()
            for cpu in core.cpus
        }
    return types if len(set(types.values())) > 1 else {}


def _caches(system: str, cores: Iterable[_Core], present: Set[int]) -> Iterator[Cache]:
    """Read each cache once, as far as it is shared by several cores."""
    known: set[int] = set()
    for core in cores:
        if core.first in known:
            continue
        found = list(_caches_of(f"{system}/cpu/cpu{core.first}/cache", present))
        yield from found
        if found:
            known.update(min(found, key=lambda cache: len(cache.cpus)).cpus)


def _caches_of(folder: str, present: Set[int]) -> Iterator[Cache]:
    for name in sorted(_names(folder)):
        level = _number(f"{folder}/{name}/level")
        if level is None or level < _LEAST_LEVEL:
            continue
        size = _text(f"{folder}/{name}/size").strip()
        yield Cache(
            level,
            _KINDS.get(_text(f"{folder}/{name}/type").strip(), "both"),
            int(size[:-1] or 0) * _KIB.get(size[-1:], 1),
            among(_ids(f"{folder}/{name}/shared_cpu_list"), present),
        )


def _number(path: str) -> int | None:
    try:
        return int(_text(path))
    except ValueError:
        return None


def _ids(path: str) -> CpuSet:
    return parse_ids(_text(path))


def _text(path: str) -> str:
    """Read a file that not every kernel has; empty if it is not there."""
    try:
        return read_text(path)
    except OSError:
        return ""


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []
