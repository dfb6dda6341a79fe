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

"""The host: its CPUs and NUMA nodes, and how its kernel shares CPU time.

The kernel tells, or libvirt where that is not the kernel beside us.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
import functools
import os
from pathlib import Path
import re
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from kongming.cpuset import CpuSet
from kongming.hypervisor.files import parse_ids, read_text

SYSTEM = Path("/sys/devices/system")
CGROUP = Path("/sys/fs/cgroup")

_NODE = re.compile(r"node([0-9]+)")
_MEMORY = re.compile(r"Mem(Total|Free): *([0-9]+) kB")
# libvirt writes IEC units; "B" and "bytes" only for what is smaller than 1 KiB.
_BYTES = {"B": 1, "bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

_NODE_0 = CpuSet([0])
_NONE = CpuSet()


@dataclass(frozen=True, slots=True)
class Host:
    """What guests can be placed on.

    :ivar present: the CPUs that there are, online or not; their ids may have holes.
    :ivar online: those CPUs that can run something now.
    :ivar nodes: the NUMA nodes that have memory.
    :ivar cgroup: the version of the control groups that libvirt uses, 1 or
        2; None if it is not known.
    :ivar barred: CPUs that are online, but that a control group above a guest's
        lacks: group → CPUs. Empty for the host as such.
    """

    present: CpuSet
    online: CpuSet
    nodes: CpuSet = _NODE_0
    cgroup: int | None = None
    barred: tuple[tuple[str, CpuSet], ...] = ()

    @property
    def usable(self) -> CpuSet:
        """The CPUs on which threads of a guest can run now."""
        usable = self.online
        for _group, cpus in self.barred:
            usable = CpuSet(usable - cpus)
        return usable

    @property
    def map_length(self) -> int:
        """How long libvirt's maps of this host's CPUs are."""
        return max(self.present) + 1

    def settable(self, cpus: CpuSet) -> CpuSet:
        """Return those CPUs that a thread can be pinned to now.

        With cgroup v2 a set may hold CPUs that can't be used: the kernel runs the
        threads there too once they can. With v1 it refuses them.
        """
        running = CpuSet(cpus & self.usable)
        return running if self.cgroup == 1 or not running else cpus

    def of_groups(self, version: int, groups: Mapping[Path, CpuSet]) -> Host:
        """Return the host as a guest below control groups has it.

        :param version: of the control groups.
        :param groups: the CPUs that each leaves it, the outermost first.
        """
        left, barred = self.online, []
        for folder, has in groups.items():
            if lacking := CpuSet(left - has):
                barred.append((str(folder), lacking))
                left = CpuSet(left & has)
        return replace(self, cgroup=version, barred=tuple(barred))


def read_sysfs(system: Path = SYSTEM, cgroup: Path = CGROUP) -> Host:
    """Ask the kernel: libvirt would do the same, ten times as slowly.

    :raises OSError: if it does not tell.
    """
    return _host(
        str(system),
        read_text(f"{system}/cpu/present"),
        read_text(f"{system}/cpu/online"),
        _has_memory(system),
        # Where both are mounted, libvirt finds the cpu controllers in v1.
        2 if os.path.exists(f"{cgroup}/cgroup.controllers") else 1,  # noqa: PTH110
    )


@functools.lru_cache(maxsize=1)
def _host(system: str, present: str, online: str, has_memory: str | None, cgroup: int) -> Host:
    """Read what the kernel said, unless it says the same as before."""
    there = parse_ids(present)
    return Host(
        there,
        parse_ids(online) & there,
        _memory_nodes(Path(system), has_memory),
        cgroup,
    )


def node_ids(system: Path = SYSTEM) -> list[int]:
    """Return the ids of the NUMA nodes; none if the kernel was built without NUMA."""
    try:
        names = os.listdir(f"{system}/node")  # noqa: PTH208
    except FileNotFoundError:
        return []
    return sorted(int(node[1]) for node in map(_NODE.fullmatch, names) if node)


def memory_nodes(system: Path = SYSTEM) -> CpuSet:
    """Return the NUMA nodes that have memory; node 0 if the kernel was built without NUMA."""
    return _memory_nodes(system, _has_memory(system))


def memory_kib(meminfo: Path) -> tuple[int, int | None]:
    """Read how much memory there is, and how much of it is free, in KiB; None if unknown."""
    try:
        found = dict(_MEMORY.findall(read_text(meminfo)))
    except OSError:
        found = {}
    return int(found.get("Total", 0)), int(found["Free"]) if "Free" in found else None


def online_cpus(system: Path = SYSTEM) -> CpuSet:
    """Ask the kernel which CPUs are online."""
    return _online(read_text(f"{system}/cpu/online"))


def read_libvirt(connection: Any) -> Host:
    """Ask libvirt; raises its errors."""
    return parse_libvirt(connection.getCapabilities(), connection.getCPUMap())


def parse_libvirt(capabilities: str, cpumap: tuple[int, Sequence[bool], int]) -> Host:
    """Read libvirt's capabilities XML and its map of CPUs.

    libvirt counts from 0 to the last CPU, whether all of these are there or not, and says
    which are online. Of those that are not, the ones that it lists in the cells are there;
    of a host without cells it is not known better than that all are.
    """
    count, online, _number = cpumap
    running = CpuSet.from_cpumap(online)
    cells = ET.fromstring(capabilities).findall("host/topology/cells/cell")
    told = {int(cpu.get("id", "")) for cell in cells for cpu in cell.iterfind("cpus/cpu")}
    storing = CpuSet(int(cell.get("id", "")) for cell in cells if cell_memory_kib(cell))
    return Host(
        running | (CpuSet(told) if told else CpuSet(range(count))) & CpuSet(range(count)),
        running,
        storing or _NODE_0,
    )


def cell_memory_kib(cell: ET.Element) -> int:
    """Read how much memory a cell of libvirt's capabilities has; it may say nothing of none."""
    memory = cell.find("memory")
    return 0 if memory is None else kib(memory.text or "0", memory.get("unit", "KiB"))


def kib(size: str, unit: str) -> int:
    """Return a size in one of libvirt's units in KiB."""
    return int(size) * _BYTES[unit] >> 10


def is_here(uri: str) -> bool:
    """Tell whether the guests of a libvirt URI run on this machine's kernel."""
    parts = urlsplit(uri)
    return parts.scheme in {"qemu", "qemu+unix"} and not parts.netloc


@functools.lru_cache(maxsize=1)
def _online(online: str) -> CpuSet:
    return CpuSet.parse(online)


def _has_memory(system: Path) -> str | None:
    try:
        return read_text(f"{system}/node/has_memory")
    except FileNotFoundError:
        return None


def _memory_nodes(system: Path, has_memory: str | None) -> CpuSet:
    nodes = CpuSet(node_ids(system))
    listed = nodes if has_memory is None else parse_ids(has_memory)
    # A node is listed, too, if the firmware keeps all of its memory for itself.
    storing = CpuSet(
        node for node in nodes & listed if memory_kib(system / f"node/node{node}/meminfo")[0]
    )
    return (storing if nodes else listed) or _NODE_0
