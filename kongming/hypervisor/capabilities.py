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

"""The host's topology, read from libvirt's capabilities and from the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from kongming.cpuset import CpuSet
from kongming.hypervisor.host import Host, read_libvirt
from kongming.hypervisor.topology import Cache, Cell, Cpu, Topology, ids

# libvirt writes IEC units; "B" and "bytes" only for what is smaller than 1 KiB.
_BYTES = {"B": 1, "bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def parse(
    capabilities: str,
    cpus: Host,
    *,
    free_kib: Mapping[int, int] | None = None,
    home: Mapping[int, int] | None = None,
    memory_kib: int = 0,
) -> Topology:
    """Read libvirt's capabilities XML.

    :param cpus: the host's CPUs: the XML leaves out those that are offline, or
        tells of them what is not so, by libvirt's version.
    :param free_kib: free memory of each cell, as far as it is known.
    :param home: to which cell a CPU belongs that the XML leaves out.
    :param memory_kib: the host's memory, for a host whose XML has no cells.
    """
    host = ET.fromstring(capabilities).find("host")
    found = [] if host is None else host.findall("topology/cells/cell")
    banks = [] if host is None else host.findall("cache/bank")
    members = {int(cell.get("id", "")): _cpus(cell, cpus.online) for cell in found}
    told = {cpu.id for listed in members.values() for cpu in listed}
    left_out = [_bare(cpu, cpus.online) for cpu in cpus.present if cpu not in told]
    # Where the firmware numbers them oddly, libvirt has a bank for each CPU of a cache.
    caches = tuple(dict.fromkeys(_cache(bank) for bank in banks))
    free_kib = free_kib or {}
    if not found:
        return Topology((_cell(0, memory_kib, free_kib, {}, left_out, caches),))
    # Where there is but one cell, all are at home there.
    homes = dict.fromkeys(cpus.present, next(iter(members))) if len(members) == 1 else {}
    homes |= home or {}
    homeless: list[Cpu] = []
    for cpu in left_out:
        members.get(homes.get(cpu.id, -1), homeless).append(cpu)
    return Topology(
        cells=tuple(
            _cell(number, _memory_kib(cell), free_kib, _distances(cell), members[number], caches)
            for number, cell in sorted((int(cell.get("id", "")), cell) for cell in found)
        ),
        homeless=tuple(homeless),
    )


def read(connection: Any, sysfs: Path | None = None) -> Topology:
    """Ask libvirt; raises its errors.

    :param sysfs: the kernel's folder ``/sys/devices/system/cpu``, where it is
        that of the host that libvirt speaks of; None where it is not.
    """
    capabilities = connection.getCapabilities()
    cpus = read_libvirt(connection)
    cells = [int(cell.get("id", "")) for cell in ET.fromstring(capabilities).iter("cell")]
    return parse(
        capabilities,
        cpus,
        free_kib=_free_kib(connection, cells),
        home={} if sysfs is None else read_homes(sysfs),
        memory_kib=connection.getInfo()[1] << 10,
    )


def read_homes(sysfs: Path) -> dict[int, int]:
    """Ask the kernel to which NUMA node each CPU belongs, those offline included."""
    return {
        int(node.parent.name.removeprefix("cpu")): int(node.name.removeprefix("node"))
        for node in sysfs.glob("cpu[0-9]*/node[0-9]*")
    }


def _free_kib(connection: Any, cells: Sequence[int]) -> dict[int, int]:
    if not cells:
        free = _supported(connection.getFreeMemory)
        return {} if free is None else {0: free >> 10}
    free_kib = {}
    for cell in cells:
        if (stats := _supported(connection.getMemoryStats, cell)) is not None:
            free_kib[cell] = stats["free"]
        elif (free := _supported(connection.getCellsFreeMemory, cell, 1)) is not None:
            free_kib[cell] = free[0] >> 10
    return free_kib


def _supported(function: Callable[..., Any], *arguments: int) -> Any:
    """Call a function of libvirt's; None if its driver does not have it."""
    try:
        return function(*arguments)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return None


def _cell(
    number: int,
    memory_kib: int,
    free_kib: Mapping[int, int],
    distances: Mapping[int, int],
    cpus: Iterable[Cpu],
    caches: Iterable[Cache],
) -> Cell:
    ordered = tuple(sorted(cpus, key=lambda cpu: cpu.id))
    return Cell(
        id=number,
        memory_kib=memory_kib,
        free_kib=free_kib.get(number),
        distances=distances,
        cpus=ordered,
        caches=tuple(cache for cache in caches if cache.cpus & ids(ordered)),
    )


def _memory_kib(cell: ET.Element) -> int:
    memory = cell.find("memory")
    return 0 if memory is None else _kib(memory.text or "0", memory.get("unit", "KiB"))


def _distances(cell: ET.Element) -> dict[int, int]:
    return {
        int(sibling.get("id", "")): int(sibling.get("value", ""))
        for sibling in cell.iterfind("distances/sibling")
    }


def _cpus(cell: ET.Element, online: CpuSet) -> list[Cpu]:
    return [_cpu(cpu, online) for cpu in cell.iterfind("cpus/cpu")]


def _cpu(cpu: ET.Element, online: CpuSet) -> Cpu:
    number = int(cpu.get("id", ""))
    if number not in online or cpu.get("socket_id") is None:
        # The kernel does not tell of a CPU that is offline; libvirt writes zeros then.
        return _bare(number, online)
    return Cpu(
        id=number,
        socket=int(cpu.get("socket_id", "")),
        # Older ones do not tell of dies.
        die=int(cpu.get("die_id", "0")),
        core=int(cpu.get("core_id", "0")),
        siblings=CpuSet.parse(cpu.get("siblings", str(number))),
        online=True,
    )


def _bare(number: int, online: CpuSet) -> Cpu:
    return Cpu(number, None, None, None, CpuSet([number]), number in online)


def _cache(bank: ET.Element) -> Cache:
    return Cache(
        level=int(bank.get("level", "0")),
        kind=bank.get("type", "both"),
        size_kib=_kib(bank.get("size", "0"), bank.get("unit", "KiB")),
        cpus=CpuSet.parse(bank.get("cpus", "")),
    )


def _kib(size: str, unit: str) -> int:
    return int(size) * _BYTES[unit] >> 10
