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

"""What libvirt and the kernel need to know of an aspect."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, Protocol, TypeVar
from xml.etree import ElementTree as ET

import libvirt

from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import Quota, Target
from kongming.hypervisor.host import Host
from kongming.hypervisor.libvirt_reading import LibvirtReader
from kongming.hypervisor.process import Thread
from kongming.hypervisor.reading import Reading

V = TypeVar("V", CpuSet, int, Quota)

LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
DEFINED = libvirt.VIR_DOMAIN_AFFECT_CONFIG


class Change(NamedTuple):
    """A change of a domain.

    :ivar reported: the changes in libvirt's event: name → value. A change of the persistent
        definition causes none.
    :ivar call: calls libvirt.
    """

    reported: Mapping[str, object]
    call: Callable[[], object]


class GuestState(Protocol):
    """The state of a guest in the kernel, at one moment."""

    def threads(self, what: Target) -> list[Thread]:
        """Return the threads of a vCPU, an iothread or the emulator."""

    def all_threads(self) -> list[Thread]:
        """Return all threads of the QEMU process."""

    def vcpu_quotas(self) -> list[tuple[int, Quota]]:
        """Return the quota of each vCPU's control group, by vCPU."""


class Row(abc.ABC, Generic[V]):
    """One aspect.

    :ivar section: the child of the domain element that holds it: «cputune».
    :ivar reading: what is read from libvirt, for a sentence: «reading …».
    :ivar is_complete: whether a target does not exist if the kernel shows others of the aspect,
        but not this one.
    """

    section = "cputune"
    reading: str
    is_complete = False

    @abc.abstractmethod
    def change(self, domain: Any, host: Host, number: int, value: V, flags: int) -> Change:
        """Return the change that sets a value.

        :param flags: ``LIVE`` or ``DEFINED``: the running domain, or its persistent definition.
        """

    @abc.abstractmethod
    def write(self, parent: ET.Element, number: int, value: V) -> None:
        """Add a value to a baseline element."""

    @abc.abstractmethod
    def read(self, parent: ET.Element) -> dict[Target, V]:
        """Read the values in a baseline element, or in the domain's section."""

    @abc.abstractmethod
    def remove(self, section: ET.Element, number: int, before: V) -> None:
        """Remove a value from the section of a saved domain.

        :param before: the value in the baseline; what is bound to the host is removed instead.
        """

    @abc.abstractmethod
    def observe(self, what: Target, guest: GuestState, nodes: CpuSet) -> list[tuple[str, V]]:
        """Return the value of each thread or group that the kernel shows, with its name.

        :param nodes: the host's NUMA nodes that have memory.
        """

    @abc.abstractmethod
    def read_libvirt(self, domain: LibvirtReader) -> dict[Target, Reading]:
        """Read all targets of the aspect from libvirt."""


class HostBound(Row[CpuSet]):
    """An aspect whose values name CPUs or nodes of the host.

    libvirt keeps such a value in the domain's XML after a release, and it means nothing on another
    host.
    """

    @abc.abstractmethod
    def unrestricted(self, anywhere: CpuSet, host: Host) -> CpuSet:
        """Return the value of a guest that is not placed.

        :param anywhere: the CPUs that Nova lets the guest use.
        """


def remove(parent: ET.Element, path: str) -> None:
    """Remove the elements of a path."""
    for element in parent.findall(path):
        parent.remove(element)
