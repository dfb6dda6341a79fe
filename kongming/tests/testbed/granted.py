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

"""What Nova gives a guest with a NUMA topology, in the form in which Nova writes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
import xml.etree.ElementTree as ET

from kongming.tests.testbed.threads import cpu_list

HUGE_PAGE_KIB = 2048


@dataclass(frozen=True)
class Granted:
    """What Nova gives one guest.

    :ivar vcpus: the host CPUs of each vCPU, in libvirt's form
    :ivar nodes: the host's node of each of the guest's cells, among which vCPUs and memory
        are shared out evenly
    :ivar emulator: the host CPUs of emulator and iothreads, in libvirt's form; None: those of
        all vCPUs that are not real-time
    :ivar realtime: these vCPUs have a real-time scheduler, and the memory is locked
    :ivar hugepages: its memory is huge pages, which the host must have reserved
    """

    vcpus: Sequence[str]
    nodes: Sequence[int] = (0,)
    emulator: str | None = None
    realtime: Sequence[int] = ()
    hugepages: bool = False

    def add_to(self, domain: ET.Element, memory_mib: int, iothreads: int) -> None:
        """Add it to the definition of a guest."""
        self._add_cputune(domain, iothreads)
        numatune = ET.SubElement(domain, "numatune")
        ET.SubElement(numatune, "memory", mode="strict", nodeset=_list(self.nodes))
        for cell, node in enumerate(self.nodes):
            ET.SubElement(numatune, "memnode", cellid=str(cell), mode="strict", nodeset=str(node))
        numa = ET.SubElement(ET.SubElement(domain, "cpu"), "numa")
        each, memory_kib = len(self.vcpus) // len(self.nodes), memory_mib * 1024
        for cell in range(len(self.nodes)):
            written = ET.SubElement(
                numa,
                "cell",
                id=str(cell),
                cpus=f"{cell * each}-{cell * each + each - 1}",
                memory=str(memory_kib // len(self.nodes)),
                unit="KiB",
            )
            if self.hugepages:
                written.set("memAccess", "shared")
        if self.hugepages or self.realtime:
            self._add_memory_backing(domain)

    def _add_cputune(self, domain: ET.Element, iothreads: int) -> None:
        cputune = ET.SubElement(domain, "cputune")
        for vcpu, cpus in enumerate(self.vcpus):
            ET.SubElement(cputune, "vcpupin", vcpu=str(vcpu), cpuset=cpus)
        emulator = self.emulator or _list(
            cpu
            for vcpu, cpus in enumerate(self.vcpus)
            if vcpu not in self.realtime
            for cpu in cpu_list(cpus)
        )
        ET.SubElement(cputune, "emulatorpin", cpuset=emulator)
        for iothread in range(1, iothreads + 1):
            ET.SubElement(cputune, "iothreadpin", iothread=str(iothread), cpuset=emulator)
        if self.realtime:
            vcpus = _list(self.realtime)
            ET.SubElement(cputune, "vcpusched", vcpus=vcpus, scheduler="fifo", priority="1")

    def _add_memory_backing(self, domain: ET.Element) -> None:
        backing = ET.SubElement(domain, "memoryBacking")
        if self.hugepages:
            pages = ET.SubElement(backing, "hugepages")
            for cell in range(len(self.nodes)):
                ET.SubElement(
                    pages, "page", size=str(HUGE_PAGE_KIB), unit="KiB", nodeset=str(cell)
                )
        if self.realtime:
            ET.SubElement(backing, "nosharepages")
            ET.SubElement(backing, "locked")


def _list(numbers: Iterable[int]) -> str:
    return ",".join(str(number) for number in sorted(set(numbers)))
