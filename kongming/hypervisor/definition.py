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

from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from kongming.cpuset import CpuSet

# Both 1.0 and 1.1 are in use; the element's presence is what counts.
_NOVA = "{http://openstack.org/xmlns/libvirt/nova/"

#: Namespace of our own element in a domain's metadata.
BASELINE_URI = "http://openstack.org/xmlns/libvirt/kongming/1.0"
BASELINE_PREFIX = "kongming"


@dataclass(frozen=True, slots=True)
class Definition:
    """The live definition of one domain.

    :ivar nova: whether Nova made it (it has Nova's metadata element).
    :ivar nova_owns: why Nova itself decides the placement; None if not.
    :ivar vcpus: number of vCPUs, those not plugged in yet included.
    :ivar pins: the cpuset that libvirt was told for each vCPU, the CPUs that
        an unpinned vCPU may use being all of the host's.
    :ivar baseline: the pins before Kongming first touched this domain; None
        if it never did.
    """

    nova: bool
    nova_owns: str | None
    vcpus: int
    pins: Mapping[int, CpuSet]
    baseline: Mapping[int, CpuSet] | None


def parse(xml: str, host_cpus: int) -> Definition:
    """Read the live domain XML of a host that has ``host_cpus`` CPUs."""
    root = ET.fromstring(xml)
    vcpu = root.find("vcpu")
    if vcpu is None or vcpu.text is None:
        # libvirt writes the element even for one vCPU.
        raise ValueError("the domain's definition has no <vcpu> element")
    unpinned = CpuSet(range(host_cpus))
    if cpuset := vcpu.get("cpuset"):
        unpinned = CpuSet.parse(cpuset)
    baseline = root.find(f"metadata/{{{BASELINE_URI}}}baseline")
    return Definition(
        nova=any(child.tag.startswith(_NOVA) for child in root.iterfind("metadata/*")),
        nova_owns=_nova_owns(root),
        vcpus=int(vcpu.text),
        pins=dict.fromkeys(range(int(vcpu.text)), unpinned) | _pins(root.find("cputune")),
        baseline=None if baseline is None else _pins(baseline),
    )


def baseline_xml(pins: Mapping[int, CpuSet]) -> str:
    """Write the baseline as libvirt keeps it in the domain's metadata."""
    baseline = ET.Element("baseline")
    for vcpu, cpus in pins.items():
        ET.SubElement(baseline, "vcpupin", vcpu=str(vcpu), cpuset=str(cpus))
    return ET.tostring(baseline, encoding="unicode")


def _pins(parent: ET.Element | None) -> dict[int, CpuSet]:
    # Our own element's children are in our namespace, libvirt's are in none.
    return {
        int(pin.get("vcpu", "")): CpuSet.parse(pin.get("cpuset", ""))
        for pin in (() if parent is None else parent.iterfind("{*}vcpupin"))
    }


def _nova_owns(root: ET.Element) -> str | None:
    if root.find("cpu/numa") is not None:
        return "the guest has a NUMA topology (<cpu><numa>)"
    if root.find("numatune/memnode") is not None:
        return "the guest's memory is bound cell by cell (<numatune><memnode>)"
    return None
