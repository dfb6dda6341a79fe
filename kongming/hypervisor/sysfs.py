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

"""The topology of this machine in ``/sys/devices/system``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Set
from dataclasses import dataclass, replace
import re

from kongming.allocation.cpuset import CpuSet
from kongming.host.topology import (
    EFFICIENCY,
    LEAST_CACHE_LEVEL,
    PERFORMANCE,
    Cache,
    Cell,
    Cpu,
    Topology,
    among,
    assemble,
)
from kongming.hypervisor.host import memory_kib, node_ids
from kongming.hypervisor.isolation import isolated_cpus
from kongming.hypervisor.kernel_files import KernelFiles

_LINK = re.compile(r"node([0-9]+)")
_INDEX = re.compile(r"index[0-9]+")
_KINDS = {"Unified": "both", "Data": "data", "Instruction": "code"}
_KIB = {"K": 1, "M": 1 << 10, "G": 1 << 20}
# A kernel with CPUs of several types has a folder for each type's counters.
_TYPES = {"cpu_core": PERFORMANCE, "cpu_atom": EFFICIENCY, "cpu_lowpower": EFFICIENCY}
# The kernel's scheduler, too, treats a difference of 5 % as significant.
_CLEARLY_LESS = 0.95


def read(files: KernelFiles, present: CpuSet, online: CpuSet, storing: CpuSet) -> Topology:
    """Read the topology from the kernel.

    What changes only with CPUs or nodes is cached.

    :param storing: the nodes that have memory.
    """
    nodes = tuple(node_ids(files))
    isolated = isolated_cpus(files)
    of = (present, online, nodes, isolated)
    shape = files.cached("topology", of, lambda: _shape(files, *of))
    return replace(shape, cells=tuple(_with_memory(each, files, storing) for each in shape.cells))


def _shape(
    files: KernelFiles, present: CpuSet, online: CpuSet, nodes: tuple[int, ...], isolated: CpuSet
) -> Topology:
    """Read all except the memory."""
    there = frozenset(present)
    cores = list(_cores(files, among(online, there)))
    order = _ids(files, "node/online") or nodes
    return assemble(
        [Cell(node, 0, distances=_distances(files, node, order)) for node in nodes or (0,)],
        _cpus(files, there, cores, isolated),
        _homes(files, there, nodes),
        _caches(files, cores, there),
    )


def _with_memory(cell: Cell, files: KernelFiles, storing: CpuSet) -> Cell:
    of_node = f"{files.system}/node/node{cell.id}/meminfo"
    found = memory_kib(files, of_node) or memory_kib(files, f"{files.proc}/meminfo")
    total, free = found or (0, None)
    return replace(cell, memory_kib=total if cell.id in storing else 0, free_kib=free)


def _distances(files: KernelFiles, node: int, online: Collection[int]) -> dict[int, int]:
    """Return the distances to the nodes that are online, in their order."""
    path = f"{files.system}/node/node{node}/distance"
    distances = files.read(path, lambda text: [int(each) for each in text.split()])
    if distances is None or len(distances) != len(online):
        return {}
    # The firmware writes 0 for an unknown distance; libvirt omits it, too.
    return {other: each for other, each in zip(online, distances, strict=True) if each}


def _homes(files: KernelFiles, present: Set[int], nodes: Iterable[int]) -> dict[int, int]:
    """Return the node of each CPU, also of those offline if the kernel shows it."""
    homes = {
        cpu: node
        for node in nodes
        for cpu in among(_ids(files, f"node/node{node}/cpulist"), present)
    }
    for cpu in present:
        if cpu not in homes:
            # The lists of nodes omit offline CPUs; the link of the CPU stays.
            for link in map(_LINK.fullmatch, files.names(f"{files.system}/cpu/cpu{cpu}") or ()):
                if link:
                    homes[cpu] = int(link[1])
    return homes


@dataclass(frozen=True, slots=True)
class _Core:
    """A core with its CPUs that are online."""

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


def _cores(files: KernelFiles, online: CpuSet) -> Iterator[_Core]:
    """Read each core once, by the first of its CPUs."""
    left = set(online)
    for cpu in online:
        if cpu in left:
            siblings = _ids(files, f"cpu/cpu{cpu}/topology/thread_siblings_list")
            core = _core(files, cpu, CpuSet([cpu, *among(siblings, left)]))
            left.difference_update(core.cpus)
            yield core


def _core(files: KernelFiles, cpu: int, cpus: CpuSet) -> _Core:
    folder = f"{files.system}/cpu/cpu{cpu}"
    # Without such a level the kernel has no file, or -1 in it: libvirt, too, makes that 0.
    socket, die, core = (
        max(0, files.number(f"{folder}/topology/{name}") or 0)
        for name in ("physical_package_id", "die_id", "core_id")
    )
    return _Core(cpus, socket, die, core, files.number(f"{folder}/cpu_capacity"))


def _cpus(
    files: KernelFiles, present: Iterable[int], cores: Iterable[_Core], isolated: CpuSet
) -> Iterator[Cpu]:
    types = _types(files, cores)
    found = {cpu: core for core in cores for cpu in core.cpus}
    for cpu in present:
        core = found.get(cpu)
        known = _offline(files, cpu) if core is None else core.cpu(cpu)
        yield replace(known, isolated=cpu in isolated, core_type=types.get(cpu))


def _offline(files: KernelFiles, cpu: int) -> Cpu:
    """Return an offline CPU: most kernels forget where it was."""
    folder = f"{files.system}/cpu/cpu{cpu}/topology"
    socket, die, core = (
        files.number(f"{folder}/{name}") for name in ("physical_package_id", "die_id", "core_id")
    )
    return replace(Cpu.bare(cpu), socket=socket, die=die, core=core)


def _types(files: KernelFiles, cores: Iterable[_Core]) -> dict[int, str]:
    """Return the type of each core's CPUs; none if all are alike."""
    types = {
        cpu: kind
        for name, kind in _TYPES.items()
        for cpu in files.ids(f"{files.system.parent}/{name}/cpus") or ()
    }
    if not types:
        rated = {core: core.capacity for core in cores if core.capacity is not None}
        largest = max(rated.values(), default=0)
        types = {
            cpu: EFFICIENCY if capacity < largest * _CLEARLY_LESS else PERFORMANCE
            for core, capacity in rated.items()
            for cpu in core.cpus
        }
    return types if len(set(types.values())) > 1 else {}


def _caches(files: KernelFiles, cores: Iterable[_Core], present: Set[int]) -> Iterator[Cache]:
    """Read each cache that several cores share once."""
    known: set[int] = set()
    for core in cores:
        if core.first in known:
            continue
        found = list(_caches_of(files, f"cpu/cpu{core.first}/cache", present))
        yield from found
        if found:
            known.update(min(found, key=lambda cache: len(cache.cpus)).cpus)


def _caches_of(files: KernelFiles, folder: str, present: Set[int]) -> Iterator[Cache]:
    for name in sorted(files.names(f"{files.system}/{folder}") or ()):
        path = f"{files.system}/{folder}/{name}"
        level = files.number(f"{path}/level") if _INDEX.fullmatch(name) else None
        if level is None or level < LEAST_CACHE_LEVEL:
            continue
        yield Cache(
            level,
            _KINDS.get((files.text(f"{path}/type") or "").strip(), "both"),
            files.read(f"{path}/size", _size_kib) or 0,
            among(_ids(files, f"{folder}/{name}/shared_cpu_list"), present),
        )


def _size_kib(text: str) -> int:
    size = text.strip()
    return int(size[:-1] or 0) * _KIB.get(size[-1:], 1)


def _ids(files: KernelFiles, path: str) -> CpuSet:
    return files.ids(f"{files.system}/{path}") or CpuSet()
