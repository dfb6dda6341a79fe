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

"""The NUMA nodes of the memory."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from kongming.allocation import target
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import Target
from kongming.hypervisor.aspects.row import Change, GuestState, HostBound, remove
from kongming.hypervisor.host import Host
from kongming.hypervisor.libvirt_reading import LibvirtReader
from kongming.hypervisor.reading import Reading


class MemoryNodes(HostBound):
    """The NUMA nodes that the memory is bound to."""

    section = "numatune"
    reading = "the memory's nodes"

    def change(self, domain: Any, host: Host, number: int, value: CpuSet, flags: int) -> Change:
        parameters: dict[str, Any] = {
            # libvirt could change no other mode later. It reports no event.
            "numa_mode": libvirt.VIR_DOMAIN_NUMATUNE_MEM_RESTRICTIVE,
            "numa_nodeset": str(value),
        }
        return Change({}, lambda: domain.setNumaParameters(parameters, flags))

    def write(self, parent: ET.Element, number: int, value: CpuSet) -> None:
        ET.SubElement(parent, "memory", nodeset=str(value))

    def read(self, parent: ET.Element) -> dict[Target, CpuSet]:
        memory = parent.find("{*}memory")
        nodeset = None if memory is None else memory.get("nodeset")
        return {target.MEMORY: CpuSet.parse(nodeset)} if nodeset else {}

    def remove(self, section: ET.Element, number: int, before: CpuSet) -> None:
        remove(section, "memory")

    def observe(self, what: Target, guest: GuestState, nodes: CpuSet) -> list[tuple[str, CpuSet]]:
        return [(str(each), CpuSet(each.nodes & nodes)) for each in guest.all_threads()]

    def read_libvirt(self, domain: LibvirtReader) -> dict[Target, Reading]:
        return domain.memory()

    def unrestricted(self, anywhere: CpuSet, host: Host) -> CpuSet:
        return host.nodes
