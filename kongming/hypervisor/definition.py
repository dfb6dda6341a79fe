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

"""The definition of a domain, and Kongming's elements in its metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import cast
from xml.etree import ElementTree as ET

from kongming.allocation import target
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import CPU_ASPECTS, MEMORY, Target, Value
from kongming.host.grant import Grant
from kongming.hypervisor import domain_xml
from kongming.hypervisor.aspects import table
from kongming.hypervisor.aspects.row import HostBound
from kongming.hypervisor.aspects.table import ROWS
from kongming.hypervisor.host import Host

#: The namespace of the baseline in a domain's metadata.
BASELINE_URI = "http://openstack.org/xmlns/libvirt/kongming/1.0"
BASELINE_PREFIX = "kongming"
BASELINE_TAG = f"{{{BASELINE_URI}}}baseline"
#: The namespace of released targets: libvirt never forgets a pin, nor the memory's nodes. It keeps
#: one element of each namespace.
RELEASED_URI = "http://openstack.org/xmlns/libvirt/kongming-released/1.0"
RELEASED_PREFIX = "kongming-released"
RELEASED_TAG = f"{{{RELEASED_URI}}}released"

#: The only mode in which libvirt can move the memory of a running guest.
RESTRICTIVE = "restrictive"


@dataclass(frozen=True, slots=True)
class Definition:
    """The live definition of one domain.

    :ivar nova: whether Nova made it (it has Nova's metadata element).
    :ivar project_id: the instance's project, by Nova.
    :ivar grant: what Nova gave a guest that has a NUMA topology; None if it has none.
    :ivar vcpus: number of vCPUs, including those not plugged in yet.
    :ivar iothreads: the numbers of its iothreads.
    :ivar memory_kib: its current memory.
    :ivar configured: the configured CPUs and nodes of all of its targets; by default all of the
        host's.
    :ivar explicit: the targets whose CPUs are configured explicitly.
    :ivar memory_mode: ``numatune``'s mode; None if the domain has none.
    :ivar baseline: the values that changed targets return to: those they had before, or those that
        Nova gave them.
    :ivar baseline_store: the store that wrote the baseline; empty if it is not named.
    :ivar has_foreign_baseline: whether the baseline was written on another host. Then its CPUs and
        nodes are not used: the guest returns to where Nova lets it run here.
    :ivar released: the configured values of targets that have been released since.
    """

    nova: bool
    project_id: str | None
    grant: Grant | None
    vcpus: int
    iothreads: CpuSet
    memory_kib: int
    configured: Mapping[Target, CpuSet]
    explicit: Set[Target]
    memory_mode: str | None
    baseline: Mapping[Target, Value]
    baseline_store: str = ""
    has_foreign_baseline: bool = False
    released: Mapping[Target, Value] = field(default_factory=dict)

    def is_placed_by(self, store: str) -> bool:
        """Return whether Kongming placed the guest, and the baseline names no other store."""
        return bool(self.baseline) and self.baseline_store in ("", store)


def parse(xml: str, host: Host, persistent: Callable[[], str] | None = None) -> Definition:
    """Read the live domain XML of a guest on ``host``.

    :param persistent: returns its persistent XML; called only if the guest has a NUMA topology.
        Without it, the grant is read from the live XML.
    """
    root = ET.fromstring(xml)
    vcpu = root.find("vcpu")
    if vcpu is None or vcpu.text is None:
        # libvirt writes the element even for one vCPU.
        raise ValueError("the domain's definition has no <vcpu> element")
    vcpus = int(vcpu.text)
    iothreads = domain_xml.iothreads(root)
    anywhere = domain_xml.anywhere(root, host)
    memory = root.find("numatune/memory")
    threads = [target.vcpu(number) for number in range(vcpus)]
    threads += [target.EMULATOR, *map(target.iothread, iothreads)]
    pins = domain_xml.pins(root)
    nova = domain_xml.nova_instance(root)
    element = baseline_of(root)
    baseline = baseline_here(root, host)
    given = None
    if domain_xml.has_numa_topology(root):
        given = domain_xml.grant(root if persistent is None else ET.fromstring(persistent()))
        baseline = {what: given.cpus.get(what, value) for what, value in baseline.items()}
    return Definition(
        nova=nova is not None,
        project_id=domain_xml.project_id(nova),
        grant=given,
        vcpus=vcpus,
        iothreads=iothreads,
        memory_kib=domain_xml.memory_kib(root),
        configured={
            **dict.fromkeys(threads, anywhere),
            **pins,
            MEMORY: domain_xml.nodes(root) or host.nodes,
        },
        explicit=frozenset(threads if vcpu.get("cpuset") else pins),
        memory_mode=None if memory is None else memory.get("mode", "strict"),
        baseline=baseline,
        baseline_store=store_of(element),
        has_foreign_baseline=bool(_foreign_notes(root, host)),
        released=read_element(root.find(f"metadata/{RELEASED_TAG}")),
    )


def baseline_of(root: ET.Element) -> ET.Element | None:
    """Return the element of the baseline; None if the domain has none."""
    return root.find(f"metadata/{BASELINE_TAG}")


def notes(root: ET.Element) -> list[ET.Element]:
    """Return Kongming's elements: the baseline, and the released targets."""
    found = (baseline_of(root), root.find(f"metadata/{RELEASED_TAG}"))
    return [element for element in found if element is not None]


def store_of(baseline: ET.Element | None) -> str:
    """Return the store that wrote a baseline; empty if it is not named."""
    return "" if baseline is None else baseline.get("store", "")


def _foreign_notes(root: ET.Element, host: Host) -> list[ET.Element]:
    """Return the elements that were written on another host."""
    here = ("", host.uuid)
    return [note for note in notes(root) if host.uuid and note.get("host", "") not in here]


def parse_baseline(xml: str, host: Host) -> Mapping[Target, Value] | None:
    """Read the baseline of a persistent domain XML on ``host``; None if there is none."""
    root = ET.fromstring(xml)
    has_foreign_baseline = bool(_foreign_notes(root, host))
    if baseline_of(root) is None and not has_foreign_baseline:
        return None
    baseline = baseline_here(root, host)
    if not domain_xml.has_numa_topology(root):
        return baseline
    # Nova writes the CPUs of such a guest for each host, and gives it others when it returns: only
    # pins that Kongming has narrowed are widened.
    configured = {} if has_foreign_baseline else domain_xml.pins(root)
    return {
        what: value
        for what, value in baseline.items()
        if what.aspect not in CPU_ASPECTS
        or (what in configured and configured[what] <= cast(CpuSet, value))
    }


def baseline_here(root: ET.Element, host: Host) -> dict[Target, Value]:
    """Read the baseline as it is valid on ``host``.

    CPUs and nodes of another host mean nothing here: targets that have any, released or not,
    return to where Nova lets them be.
    """
    baseline = read_element(baseline_of(root))
    anywhere = domain_xml.anywhere(root, host)
    for what in [what for note in _foreign_notes(root, host) for what in table.read(note)]:
        row = ROWS[what.aspect]
        if isinstance(row, HostBound):
            baseline[what] = row.unrestricted(anywhere, host)
    return baseline


def outlasting(baseline: Mapping[Target, Value]) -> dict[Target, Value]:
    """Return the values of a baseline that libvirt keeps in the XML even after a release."""
    return {
        what: value for what, value in baseline.items() if isinstance(ROWS[what.aspect], HostBound)
    }


def baseline_xml(
    baseline: Mapping[Target, Value], store: str = "", host: str = "", name: str = "baseline"
) -> str:
    """Serialize the baseline, or released targets, for the domain's metadata.

    :param store: the store that has the guest's request; empty if none is to be named.
    :param host: libvirt's UUID of the host; empty if none is to be named.
    :param name: of the element.
    """
    named = {"store": store, "host": host}
    parent = ET.Element(name, {name: value for name, value in named.items() if value})
    table.write(parent, baseline)
    return ET.tostring(parent, encoding="unicode")


def read_element(element: ET.Element | None) -> dict[Target, Value]:
    """Read an element that :func:`baseline_xml` wrote; empty if there is none."""
    return {} if element is None else table.read(element)
