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

"""What the live definition of a domain says: the few parts that matter to us.

Only reading: from libvirt's domain XML to a value, and our own part of it.
"""

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
from kongming.hypervisor.aspects.table import ROWS
from kongming.hypervisor.host import Host

#: Namespace of our own element in a domain's metadata.
BASELINE_URI = "http://openstack.org/xmlns/libvirt/kongming/1.0"
BASELINE_PREFIX = "kongming"
BASELINE_TAG = f"{{{BASELINE_URI}}}baseline"
#: Likewise of what libvirt was told of a guest that has been released since: it never forgets a
#: pin, nor the memory's nodes. libvirt keeps one element of each namespace.
RELEASED_URI = "http://openstack.org/xmlns/libvirt/kongming-released/1.0"
RELEASED_PREFIX = "kongming-released"
RELEASED_TAG = f"{{{RELEASED_URI}}}released"

#: The only mode in which libvirt lets memory be moved while a guest runs.
RESTRICTIVE = "restrictive"


@dataclass(frozen=True, slots=True)
class Definition:
    """The live definition of one domain.

    :ivar nova: whether Nova made it (it has Nova's metadata element).
    :ivar project_id: the project that the instance belongs to, by Nova.
    :ivar grant: what Nova gave a guest that has a NUMA topology; None if it has none.
    :ivar vcpus: number of vCPUs, those not plugged in yet included.
    :ivar iothreads: the numbers of its iothreads.
    :ivar memory_kib: how much memory it has now.
    :ivar told: what libvirt was told of pins and memory, for every target
        that the domain has; what it was not told is all of the host's.
    :ivar configured: the targets whose CPUs libvirt was told, rather than left to run
        wherever the kernel lets them.
    :ivar memory_mode: ``numatune``'s mode; None if the domain has none.
    :ivar baseline: what the targets that Kongming touched return to: what they had before,
        or what Nova gave them.
    :ivar kept_by: the store that wrote the baseline; empty if it does not say.
    :ivar travelled: whether the baseline was written on another host: then the guest returns to
        where Nova lets it run here, and what that host noted is not used.
    :ivar released: what libvirt was told of targets that have been released since.
    """

    nova: bool
    project_id: str | None
    grant: Grant | None
    vcpus: int
    iothreads: CpuSet
    memory_kib: int
    told: Mapping[Target, CpuSet]
    configured: Set[Target]
    memory_mode: str | None
    baseline: Mapping[Target, Value]
    kept_by: str = ""
    travelled: bool = False
    released: Mapping[Target, Value] = field(default_factory=dict)

    def is_placed_by(self, store: str) -> bool:
        """Tell whether Kongming placed the guest, and no other store is known to say why."""
        return bool(self.baseline) and self.kept_by in ("", store)


def parse(xml: str, host: Host, persistent: Callable[[], str] | None = None) -> Definition:
    """Read the live domain XML of a guest on ``host``.

    :param persistent: returns its persistent XML; asked only if the guest has a NUMA topology.
        Without it, what the live XML says is the grant.
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
    mine = [target.vcpu(number) for number in range(vcpus)]
    mine += [target.EMULATOR, *map(target.iothread, iothreads)]
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
        told={
            **dict.fromkeys(mine, anywhere),
            **pins,
            MEMORY: domain_xml.nodes(root) or host.nodes,
        },
        configured=frozenset(mine if vcpu.get("cpuset") else pins),
        memory_mode=None if memory is None else memory.get("mode", "strict"),
        baseline=baseline,
        kept_by=kept_by(element),
        travelled=bool(_from_elsewhere(root, host)),
        released=read_element(root.find(f"metadata/{RELEASED_TAG}")),
    )


def baseline_of(root: ET.Element) -> ET.Element | None:
    """Return our own element; None if the domain has none."""
    return root.find(f"metadata/{BASELINE_TAG}")


def notes(root: ET.Element) -> list[ET.Element]:
    """Return Kongming's elements: of the baseline, and of what was released."""
    found = (baseline_of(root), root.find(f"metadata/{RELEASED_TAG}"))
    return [element for element in found if element is not None]


def kept_by(baseline: ET.Element | None) -> str:
    """Return which store knows why a domain has our element; empty if it does not say."""
    return "" if baseline is None else baseline.get("store", "")


def _from_elsewhere(root: ET.Element, host: Host) -> list[ET.Element]:
    """Return those of Kongming's elements that were written on another host than this one."""
    here = ("", host.uuid)
    return [note for note in notes(root) if host.uuid and note.get("host", "") not in here]


def parse_baseline(xml: str, host: Host) -> Mapping[Target, Value] | None:
    """Read what a persistent domain XML is to return to on ``host``; None if nothing is ours."""
    root = ET.fromstring(xml)
    travelled = bool(_from_elsewhere(root, host))
    if baseline_of(root) is None and not travelled:
        return None
    baseline = baseline_here(root, host)
    if not domain_xml.has_numa_topology(root):
        return baseline
    # Nova writes the CPUs of such a guest anew for each host, and gives it others when it comes
    # back: only what Kongming has narrowed is widened again.
    told = {} if travelled else domain_xml.pins(root)
    return {
        what: value
        for what, value in baseline.items()
        if what.aspect not in CPU_ASPECTS or (what in told and told[what] <= cast(CpuSet, value))
    }


def baseline_here(root: ET.Element, host: Host) -> dict[Target, Value]:
    """Read our elements as they count on ``host``.

    CPUs and nodes of another host mean nothing here: what has any of them, released or not,
    returns to where Nova lets it be.
    """
    baseline = read_element(baseline_of(root))
    for what in [what for note in _from_elsewhere(root, host) for what in table.read(note)]:
        row = ROWS[what.aspect]
        if row.is_host_bound:
            baseline[what] = row.unrestricted(domain_xml.anywhere(root, host), host)
    return baseline


def outlasting(baseline: Mapping[Target, Value]) -> dict[Target, Value]:
    """Return the part of a baseline that libvirt keeps in a domain's XML also after a release."""
    return {what: value for what, value in baseline.items() if ROWS[what.aspect].is_host_bound}


def baseline_xml(
    baseline: Mapping[Target, Value], store: str = "", host: str = "", name: str = "baseline"
) -> str:
    """Write the baseline, or what was released, as libvirt keeps it in the domain's metadata.

    :param store: which store knows why; empty if none is to be named.
    :param host: libvirt's UUID of the host that it holds on; empty if none is to be named.
    :param name: of the element.
    """
    named = {"store": store, "host": host}
    parent = ET.Element(name, {name: value for name, value in named.items() if value})
    table.write(parent, baseline)
    return ET.tostring(parent, encoding="unicode")


def read_element(element: ET.Element | None) -> dict[Target, Value]:
    """Read the element that :func:`baseline_xml` writes; nothing if there is none."""
    return {} if element is None else table.read(element)
