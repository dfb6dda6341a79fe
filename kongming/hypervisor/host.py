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

"""The host's CPUs and NUMA nodes, and the version of its control groups.

They are read from the kernel; from libvirt if the kernel's files can't be read, or if libvirt runs
on another machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
import functools
from pathlib import Path
import re
from typing import Any
from xml.etree import ElementTree as ET

from kongming.allocation.cpuset import CpuSet
from kongming.hypervisor.kernel_files import USE_LIBVIRT, KernelFiles
from kongming.hypervisor.visibility import Gap

_NODE = re.compile(r"node([0-9]+)")
_MEMORY = re.compile(r"Mem(Total|Free): *([0-9]+) kB")
# libvirt writes IEC units; "B" and "bytes" only for what is smaller than 1 KiB.
_BYTES = {"B": 1, "bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

# A CPU may come online or go offline between the two reads.
_ATTEMPTS = 2

_NODE_0 = CpuSet([0])


@dataclass(frozen=True, slots=True)
class Host:
    """The CPUs and nodes that guests can be placed on.

    :ivar present: the CPUs, online or not; their ids may have gaps.
    :ivar online: those CPUs that are online.
    :ivar nodes: the NUMA nodes that have memory.
    :ivar cgroup: the version of the control groups that libvirt uses, 1 or 2; None if it is
        unknown.
    :ivar barred: CPUs that are online, but missing in a control group above a guest's: group →
        CPUs. Empty for the host as such.
    :ivar uuid: libvirt's identifier of the host; empty if it is unknown.
    """

    present: CpuSet
    online: CpuSet
    nodes: CpuSet = _NODE_0
    cgroup: int | None = None
    barred: tuple[tuple[str, CpuSet], ...] = ()
    uuid: str = ""

    @property
    def usable(self) -> CpuSet:
        """The CPUs that threads of a guest can use now."""
        usable = self.online
        for _group, cpus in self.barred:
            usable = CpuSet(usable - cpus)
        return usable

    @property
    def map_length(self) -> int:
        """The length of libvirt's maps of this host's CPUs."""
        return max(self.present) + 1

    def settable(self, cpus: CpuSet) -> CpuSet:
        """Return those CPUs that a thread can be pinned to now.

        With cgroup v2 a set may contain unusable CPUs: the kernel runs the threads there, too, as
        soon as it can. With v1 it refuses them.
        """
        running = CpuSet(cpus & self.usable)
        return running if self.cgroup == 1 or not running else cpus

    def of_groups(self, version: int, groups: Mapping[Path, CpuSet]) -> Host:
        """Return the host as a guest below some control groups can use it.

        :param version: of the control groups.
        :param groups: their CPUs, the outermost first.
        """
        left, barred = self.online, []
        for folder, has in groups.items():
            if lacking := CpuSet(left - has):
                barred.append((str(folder), lacking))
                left = CpuSet(left & has)
        return replace(self, cgroup=version, barred=tuple(barred))


def read(connection: Any, files: KernelFiles | None) -> Host:
    """Read the host from the kernel, and the rest from libvirt; raise libvirt's errors.

    :param files: the kernel's files, if libvirt runs on this machine.
    """
    by_libvirt = functools.cache(lambda: read_libvirt(connection))
    if files is None:
        return by_libvirt()
    present, online = agreed_cpus(connection, files) or (by_libvirt().present, by_libvirt().online)
    return Host(present, online, memory_nodes(files) or by_libvirt().nodes, _cgroup_version(files))


def agreed_cpus(connection: Any, files: KernelFiles) -> tuple[CpuSet, CpuSet] | None:
    """Return the CPUs that are present and those online; None unless kernel and libvirt agree.

    In a container with lxcfs the files are the container's, and libvirt pins only to CPUs that it
    has itself.
    """
    why = ""
    for _attempt in range(_ATTEMPTS):
        present, online = _cpus(files)
        if present is None or online is None:
            return None
        count, cpumap, _number = connection.getCPUMap()
        theirs = CpuSet.from_cpumap(cpumap)
        if online == theirs and max(present) + 1 == count:
            files.visibility.regained(_online_cpus(files))
            return present, online
        why = (
            f"they show CPU {online} of {max(present) + 1} online, libvirt shows CPU {theirs} of "
            f"{count}; is this a container with lxcfs?"
        )
    files.visibility.lost(Gap(_online_cpus(files), "trusted", why, USE_LIBVIRT))
    return None


def watched_cpus(files: KernelFiles) -> CpuSet | None:
    """Return the CPUs that are online by the kernel; None if libvirt disagrees."""
    if files.visibility.lacks(_online_cpus(files)):
        return None
    _present, online = _cpus(files)
    return online


def node_ids(files: KernelFiles) -> list[int]:
    """Return the ids of the NUMA nodes; none if the kernel was built without NUMA."""
    names = files.names(f"{files.system}/node", instead=USE_LIBVIRT) or ()
    return sorted(int(node[1]) for node in map(_NODE.fullmatch, names) if node)


def memory_nodes(files: KernelFiles) -> CpuSet | None:
    """Return the NUMA nodes that have memory; None if the kernel does not show them."""
    folder = f"{files.system}/node"
    listed = files.ids(f"{folder}/has_memory", instead=USE_LIBVIRT)
    nodes = CpuSet(node_ids(files))
    if files.visibility.lacks(folder) or files.visibility.lacks(f"{folder}/has_memory"):
        return None
    return files.cached(
        "nodes with memory", (listed, nodes), lambda: _memory_nodes(files, listed, nodes)
    )


def memory_kib(files: KernelFiles, meminfo: str) -> tuple[int, int | None] | None:
    """Read the total and the free memory in KiB; the latter is None if unknown.

    :returns: None if the file can't be read.
    """
    return files.read(meminfo, _parse_memory, instead=USE_LIBVIRT)


def read_libvirt(connection: Any) -> Host:
    """Read the host from libvirt; raise its errors."""
    return parse_libvirt(connection.getCapabilities(), connection.getCPUMap())


def parse_libvirt(capabilities: str, cpumap: tuple[int, Sequence[bool], int]) -> Host:
    """Read libvirt's capabilities XML and its map of CPUs.

    libvirt counts from 0 to the last CPU, whether all of these exist or not, and reports which are
    online. An offline CPU exists if it is listed in a cell; on a host without cells, all are taken
    to exist.
    """
    count, online, _number = cpumap
    running = CpuSet.from_cpumap(online)
    cells = ET.fromstring(capabilities).findall("host/topology/cells/cell")
    listed = {int(cpu.get("id", "")) for cell in cells for cpu in cell.iterfind("cpus/cpu")}
    storing = CpuSet(int(cell.get("id", "")) for cell in cells if cell_memory_kib(cell))
    return Host(
        running | (CpuSet(listed) if listed else CpuSet(range(count))) & CpuSet(range(count)),
        running,
        storing or _NODE_0,
    )


def cell_memory_kib(cell: ET.Element) -> int:
    """Read the memory of a cell in libvirt's capabilities, which omit it if there is none."""
    memory = cell.find("memory")
    return 0 if memory is None else kib(memory.text or "0", memory.get("unit", "KiB"))


def kib(size: str, unit: str) -> int:
    """Convert a size in one of libvirt's units to KiB."""
    return int(size) * _BYTES[unit] >> 10


def _cpus(files: KernelFiles) -> tuple[CpuSet | None, CpuSet | None]:
    present = files.ids(f"{files.system}/cpu/present", needed=True, instead=USE_LIBVIRT)
    online = files.ids(f"{files.system}/cpu/online", needed=True, instead=USE_LIBVIRT)
    return present, None if present is None or online is None else online & present


def _online_cpus(files: KernelFiles) -> str:
    return f"The CPUs of {files.system}"


def _memory_nodes(files: KernelFiles, listed: CpuSet | None, nodes: CpuSet) -> CpuSet | None:
    if not nodes:
        return listed
    folder = f"{files.system}/node"
    storing = set()
    for node in nodes if listed is None else nodes & listed:
        # A node is listed even if the firmware uses all of its memory.
        memory = memory_kib(files, f"{folder}/node{node}/meminfo")
        if memory is None and files.visibility.lacks(f"{folder}/node*/meminfo"):
            return None
        if memory is not None and memory[0]:
            storing.add(node)
    return CpuSet(storing) or _NODE_0


def _parse_memory(text: str) -> tuple[int, int | None]:
    found = dict(_MEMORY.findall(text))
    if not found:
        raise ValueError("it lists no memory")
    return int(found.get("Total", 0)), int(found["Free"]) if "Free" in found else None


def _cgroup_version(files: KernelFiles) -> int | None:
    """Return the version in which libvirt finds the controllers; None if neither is visible."""
    names = files.names(str(files.cgroup)) or ()
    if "cgroup.controllers" in names:
        return 2
    # Where both are mounted, libvirt finds the cpu controllers in v1.
    controllers = {each for name in names for each in name.split(",")}
    return 1 if controllers & {"cpu", "cpuset"} else None
