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

"""CPU pins: of vCPUs, iothreads and the emulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import Aspect, Target
from kongming.hypervisor.aspects.row import LIVE, Change, GuestState, HostBound, remove
from kongming.hypervisor.host import Host
from kongming.hypervisor.libvirt_reading import LibvirtReader
from kongming.hypervisor.reading import Reading


class _Pins(HostBound):
    """CPU pins of a kind of threads.

    :param element: its element in the domain's XML.
    :param attribute: the attribute of that element that holds the number; empty if there is none.
    :param pin: calls libvirt with the domain, the number, libvirt's CPU map and the flags.
    """

    reading = "the definition"

    def __init__(
        self,
        aspect: Aspect,
        element: str,
        attribute: str,
        pin: Callable[[Any, int, tuple[bool, ...], int], object],
    ) -> None:
        self._aspect = aspect
        self._element = element
        self._attribute = attribute
        self._pin = pin

    def change(self, domain: Any, host: Host, number: int, value: CpuSet, flags: int) -> Change:
        cpumap = value.cpumap(host.map_length)
        name = f"{self._element}{number if self._attribute else ''}"
        return Change(
            {f"cputune.{name}": str(value)}, lambda: self._pin(domain, number, cpumap, flags)
        )

    def write(self, parent: ET.Element, number: int, value: CpuSet) -> None:
        attributes = {self._attribute: str(number)} if self._attribute else {}
        ET.SubElement(parent, self._element, attributes, cpuset=str(value))

    def read(self, parent: ET.Element) -> dict[Target, CpuSet]:
        # Kongming's elements are in its namespace, libvirt's are in none.
        return {
            Target(self._aspect, int(pin.get(self._attribute, "0"))): CpuSet.parse(
                pin.get("cpuset", "")
            )
            for pin in parent.iterfind(f"{{*}}{self._element}")
        }

    def remove(self, section: ET.Element, number: int, before: CpuSet) -> None:
        condition = f"[@{self._attribute}='{number}']" if self._attribute else ""
        remove(section, f"{self._element}{condition}")

    def observe(self, what: Target, guest: GuestState, nodes: CpuSet) -> list[tuple[str, CpuSet]]:
        return [(str(each), each.cpus) for each in guest.threads(what)]

    def read_libvirt(self, domain: LibvirtReader) -> dict[Target, Reading]:
        # libvirt knows only the configured CPUs; for others it would enter QEMU's monitor.
        return {
            what: Reading.of(cpus, by_kernel=False)
            for what, cpus in domain.configured.items()
            if what.aspect is self._aspect
        }

    def unrestricted(self, anywhere: CpuSet, host: Host) -> CpuSet:
        return anywhere


class _VcpuPins(_Pins):
    """The vCPU pins. A vCPU that is not plugged in has no thread."""

    reading = "the vCPU threads' affinity"
    is_complete = True

    def read_libvirt(self, domain: LibvirtReader) -> dict[Target, Reading]:
        return domain.vcpus()


def _pin_vcpu(domain: Any, number: int, cpumap: tuple[bool, ...], flags: int) -> None:
    if flags == LIVE:
        # Not every driver of libvirt's supports flags here.
        domain.pinVcpu(number, cpumap)
    else:
        domain.pinVcpuFlags(number, cpumap, flags)


VCPU = _VcpuPins(Aspect.VCPU, "vcpupin", "vcpu", _pin_vcpu)
EMULATOR = _Pins(
    Aspect.EMULATOR,
    "emulatorpin",
    "",
    lambda domain, _number, cpumap, flags: domain.pinEmulator(cpumap, flags),
)
IOTHREAD = _Pins(
    Aspect.IOTHREAD,
    "iothreadpin",
    "iothread",
    lambda domain, number, cpumap, flags: domain.pinIOThread(number, cpumap, flags),
)
