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

from collections.abc import Mapping
from dataclasses import dataclass, replace
import functools
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from kongming.cpuset import CpuSet
from kongming.hypervisor.files import read_text

SYSTEM = Path("/sys/devices/system")
CGROUP = Path("/sys/fs/cgroup")

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
    """Ask the kernel: libvirt would do the same, ten times as slowly."""
    return _host(
        read_text(f"{system}/cpu/present"),
        read_text(f"{system}/cpu/online"),
        _memory_nodes(f"{system}/node/has_memory"),
        # Where both are mounted, libvirt finds the cpu controllers in v1.
        2 if os.path.exists(f"{cgroup}/cgroup.controllers") else 1,  # noqa: PTH110
    )


@functools.lru_cache(maxsize=1)
def _host(present: str, online: str, nodes: str, cgroup: int) -> Host:
    """Read what the kernel said, unless it says the same as before."""
    return Host(CpuSet.parse(present), CpuSet.parse(online), CpuSet.parse(nodes), cgroup)


def online_cpus(system: Path = SYSTEM) -> CpuSet:
    """Ask the kernel which CPUs are online."""
    return _online(read_text(f"{system}/cpu/online"))


def read_libvirt(connection: Any) -> Host:
    """Ask libvirt; raises its errors."""
    count, online, _number = connection.getCPUMap()
    cells = ET.fromstring(connection.getCapabilities()).iterfind("host/topology/cells/cell")
    nodes = CpuSet(int(cell.get("id", "")) for cell in cells)
    return Host(CpuSet(range(count)), CpuSet.from_cpumap(online), nodes or _NODE_0)


def is_here(uri: str) -> bool:
    """Tell whether the guests of a libvirt URI run on this machine's kernel."""
    parts = urlsplit(uri)
    return parts.scheme in {"qemu", "qemu+unix"} and not parts.netloc


@functools.lru_cache(maxsize=1)
def _online(online: str) -> CpuSet:
    return CpuSet.parse(online)


def _memory_nodes(path: str) -> str:
    try:
        return read_text(path)
    except FileNotFoundError:
        # A kernel that was built without NUMA.
        return str(_NODE_0)
