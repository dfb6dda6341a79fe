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

"""The occupants of the host, cached between reads of libvirt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
import functools
import threading
from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from kongming import exception
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import Aspect
from kongming.host.occupant import Occupant
from kongming.hypervisor import domain_xml, monitor
from kongming.hypervisor.definition import BASELINE_URI, baseline_of, store_of
from kongming.hypervisor.errors import has_stopped

# In place of libvirt's id of an incarnation, of which the first is 1: not all could be read.
_HANGS = 0


class Occupancy:
    """The occupants of a host, cached from one read to the next.

    The receiver of libvirt's events invalidates or updates the cache.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By domain, with libvirt's id of the incarnation.
        self._known: dict[str, tuple[int, Occupant]] = {}
        self._complete = False
        self._changes = 0
        self._result: list[Occupant] = []
        self._result_for: tuple[int, CpuSet | None] = (-1, None)

    def forget(self, instance_uuid: str | None = None) -> None:
        """Read a domain, or all, from libvirt next time."""
        with self._lock:
            self._changes += 1
            self._complete = False
            self._known = {} if instance_uuid is None else {**self._known}
            self._known.pop(instance_uuid or "", None)

    def note_pin(self, instance_uuid: str, vcpu: int, cpus: CpuSet) -> None:
        """Update the pin of a vCPU."""
        with self._lock:
            self._changes += 1
            if instance_uuid in self._known:
                number, occupant = self._known[instance_uuid]
                pinned = replace(occupant, pins={**occupant.pins, vcpu: cpus})
                self._known = {**self._known, instance_uuid: (number, pinned)}

    def read(self, connection: Any, online: CpuSet | None = None) -> list[Occupant]:
        """Return the occupants; raise libvirt's errors if they have to be read.

        Domains that end while they are being read are omitted.

        :param online: the host's CPUs that are online, if that is known.
        """
        if online is None:
            _count, cpumap, _number = connection.getCPUMap()
            online = CpuSet.from_cpumap(cpumap)
        with self._lock:
            known, complete, changes = self._known, self._complete, self._changes
            if complete and self._result_for == (changes, online):
                return list(self._result)
        if not complete:
            known = _list(connection, known)
        result = _confined((occupant for _number, occupant in known.values()), online)
        with self._lock:
            if self._changes == changes:
                self._known = known
                self._complete = all(number != _HANGS for number, _ in known.values())
                self._result, self._result_for = result, (changes, online)
        return list(result)


def _list(
    connection: Any, known: Mapping[str, tuple[int, Occupant]]
) -> dict[str, tuple[int, Occupant]]:
    found = {}
    for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        instance_uuid, number = domain.UUIDString(), domain.ID()
        before = known.get(instance_uuid)
        try:
            read = before if before and before[0] == number else _read(domain, number)
        except libvirt.libvirtError:
            if not has_stopped(domain):
                raise
            continue
        if read is not None:
            found[instance_uuid] = read
    return found


def parse(xml: str, persistent: Callable[[], str] | None = None) -> Occupant:
    """Read a domain's XML.

    :param persistent: returns its persistent XML; called only if the guest has a NUMA topology.
    """
    return _occupant(ET.fromstring(xml), persistent)


def _confined(occupants: Iterable[Occupant], online: CpuSet) -> list[Occupant]:
    """Omit pins that confine to nothing, or to no less than Nova does.

    libvirt keeps the former, too.
    """
    everywhere = functools.cache(online.__le__)
    return [
        replace(
            occupant,
            pins={
                vcpu: cpus
                for vcpu, cpus in occupant.pins.items()
                if not everywhere(cpus)
                and not (occupant.grant and occupant.grant.floats(vcpu, cpus))
            },
        )
        for occupant in occupants
    ]


def _read(domain: Any, number: int) -> tuple[int, Occupant] | None:
    try:
        monitor.wait(functools.partial(monitor.state, domain))
    except exception.GuestHung:
        return _HANGS, _occupant(_abridged(domain), None)
    root = ET.fromstring(domain.XMLDesc())
    # A domain that has stopped has no id.
    if root.get("id") is None:
        return None
    return number, _occupant(root, lambda: domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))


def _abridged(domain: Any) -> ET.Element:
    """Return of a domain's XML what libvirt 11 tells while QEMU hangs.

    What it lacks lets the guest seem to have no more than what its vCPUs are pinned to.
    """
    root = ET.Element("domain")
    ET.SubElement(root, "uuid").text = domain.UUIDString()
    ET.SubElement(root, "name").text = domain.name()
    metadata = ET.SubElement(root, "metadata")
    for uri in (*domain_xml.NOVA_URIS, BASELINE_URI):
        try:
            xml = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, uri)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN_METADATA:
                raise
            continue
        element = ET.fromstring(xml)
        # libvirt leaves its namespace out.
        element.tag = f"{{{uri}}}{element.tag.rpartition('}')[2]}"
        metadata.append(element)
    cputune = ET.SubElement(root, "cputune")
    for vcpu, cpumap in enumerate(domain.vcpuPinInfo()):
        cpus = CpuSet.from_cpumap(cpumap)
        ET.SubElement(cputune, "vcpupin", vcpu=str(vcpu), cpuset=str(cpus))
    return root


def _occupant(root: ET.Element, persistent: Callable[[], str] | None) -> Occupant:
    granting = None
    if domain_xml.has_numa_topology(root):
        granting = root if persistent is None else ET.fromstring(persistent())
    nova = domain_xml.nova_instance(root)
    baseline = baseline_of(root)
    return Occupant(
        instance_uuid=root.findtext("uuid", ""),
        name=root.findtext("name", ""),
        project_id=domain_xml.project_id(nova),
        nova=nova is not None,
        pins={
            what.number: cpus
            for what, cpus in domain_xml.pins(root).items()
            if what.aspect is Aspect.VCPU
        },
        cpuset=domain_xml.cpuset(root),
        memory_nodes=domain_xml.nodes(root) or None,
        touched=baseline is not None,
        touched_by=store_of(baseline),
        grant=None if granting is None else domain_xml.grant(granting),
    )
