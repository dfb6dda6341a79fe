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

"""The host's topology: from the kernel if libvirt runs on this machine, otherwise from libvirt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
import functools
from typing import Any
from xml.etree import ElementTree as ET

from kongming.allocation.cpuset import CpuSet, parse_ids
from kongming.host.topology import LEAST_CACHE_LEVEL, Cache, Cell, Cpu, Topology, among, assemble
from kongming.hypervisor import sysfs
from kongming.hypervisor.errors import if_supported
from kongming.hypervisor.host import (
    Host,
    agreed_cpus,
    cell_memory_kib,
    kib,
    memory_nodes,
    node_ids,
    parse_libvirt,
    read_libvirt,
)
from kongming.hypervisor.kernel_files import KernelFiles


def host_uuid(connection: Any) -> str:
    """Return libvirt's identifier of its host; empty if there is none."""
    return ET.fromstring(connection.getCapabilities()).findtext("host/uuid", "")


def read(connection: Any, files: KernelFiles | None = None) -> Topology:
    """Read the topology from the kernel or libvirt; raise libvirt's errors.

    :param files: the kernel's files, if libvirt runs on this machine.
    """
    if files is not None and (cpus := agreed_cpus(connection, files)):
        storing = memory_nodes(files) or read_libvirt(connection).nodes
        # A kernel without NUMA has one cell.
        if storing <= CpuSet(node_ids(files) or [0]):
            return sysfs.read(files, *cpus, storing)
    capabilities = connection.getCapabilities()
    root = ET.fromstring(capabilities)
    cells = [int(cell.get("id", "")) for cell in root.iterfind("host/topology/cells/cell")]
    return parse(
        capabilities,
        parse_libvirt(capabilities, connection.getCPUMap()),
        free_kib=_free_kib(connection, cells),
        memory_kib=connection.getInfo()[1] << 10,
    )


def parse(
    capabilities: str,
    cpus: Host,
    *,
    free_kib: Mapping[int, int] | None = None,
    memory_kib: int = 0,
) -> Topology:
    """Read libvirt's capabilities XML.

    :param cpus: the host's CPUs: some versions of libvirt omit offline CPUs from the XML, give
        wrong values for them, or list CPUs that do not exist.
    :param free_kib: free memory of each cell, as far as it is known.
    :param memory_kib: the host's memory, for a host whose XML has no cells.
    """
    free_kib = free_kib or {}
    root = ET.fromstring(capabilities)
    found = {int(cell.get("id", "")): cell for cell in root.iterfind("host/topology/cells/cell")}
    listed: dict[int, Cpu] = {}
    homes: dict[int, int] = {}
    present, online = frozenset(cpus.present), frozenset(cpus.online)
    siblings = functools.cache(lambda text: among(parse_ids(text), online))
    for number, cell in found.items():
        for each in cell.iterfind("cpus/cpu"):
            cpu = _cpu(each, online, siblings)
            listed[cpu.id] = cpu
            homes[cpu.id] = number
    cells = [
        Cell(number, cell_memory_kib(cell), free_kib.get(number), _distances(cell))
        for number, cell in found.items()
    ]
    return assemble(
        cells or [Cell(0, memory_kib, free_kib.get(0))],
        (listed.get(cpu) or Cpu.bare(cpu, online=cpu in online) for cpu in present),
        homes,
        (
            cache
            for bank in root.iterfind("host/cache/bank")
            # libvirt 11 has those of level 2, too.
            if (cache := _cache(bank, present)).level >= LEAST_CACHE_LEVEL
        ),
    )


def _free_kib(connection: Any, cells: Sequence[int]) -> dict[int, int]:
    if not cells:
        free = if_supported(connection.getFreeMemory)
        return {} if free is None else {0: free >> 10}
    free_kib = {}
    for cell in cells:
        if (stats := if_supported(connection.getMemoryStats, cell)) is not None:
            free_kib[cell] = stats["free"]
        elif (free := if_supported(connection.getCellsFreeMemory, cell, 1)) is not None:
            free_kib[cell] = free[0] >> 10
    return free_kib


def _distances(cell: ET.Element) -> dict[int, int]:
    return {
        int(sibling.get("id", "")): int(sibling.get("value", ""))
        for sibling in cell.iterfind("distances/sibling")
    }


def _cpu(cpu: ET.Element, online: Set[int], siblings: Callable[[str], CpuSet]) -> Cpu:
    number = int(cpu.get("id", ""))
    if number not in online or cpu.get("socket_id") is None:
        # For an offline CPU the kernel has no values; libvirt then writes zeros.
        return Cpu.bare(number, online=number in online)
    same_core = siblings(cpu.get("siblings", ""))
    return Cpu(
        id=number,
        socket=int(cpu.get("socket_id", "")),
        # Older versions have no dies.
        die=int(cpu.get("die_id", "0")),
        core=int(cpu.get("core_id", "0")),
        siblings=same_core if number in same_core else CpuSet([number]),
        online=True,
    )


def _cache(bank: ET.Element, present: Set[int]) -> Cache:
    return Cache(
        level=int(bank.get("level", "0")),
        kind=bank.get("type", "both"),
        size_kib=kib(bank.get("size", "0"), bank.get("unit", "KiB")),
        cpus=among(parse_ids(bank.get("cpus", "")), present),
    )
