"""The reader of domain XML: libvirt's own elements, and Nova's."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from kongming.allocation.cpuset import CpuSet, parse_ids
from kongming.allocation.target import CPU_ASPECTS, MEMORY, Aspect, Target
from kongming.host.grant import Grant
from kongming.hypervisor.aspects.table import ROWS
from kongming.hypervisor.host import Host

_NOVA = "http://openstack.org/xmlns/libvirt/nova/"
#: The namespaces of Nova's element; both are in use.
NOVA_URIS = (f"{_NOVA}1.1", f"{_NOVA}1.0")
# Ordinary threads never preempt a thread with one of these schedulers.
_REALTIME = frozenset({"fifo", "rr"})


def nova_instance(root: ET.Element) -> ET.Element | None:
    """Return the element that marks Nova's domains; None if the domain has none."""
    for child in root.iterfind("metadata/*"):
        if child.tag.startswith(f"{{{_NOVA}") and child.tag.endswith("}instance"):
            return child
    return None


def project_id(nova: ET.Element | None) -> str | None:
    """Return the instance's project from Nova's element; None if it is not named."""
    project = None if nova is None else nova.find("{*}owner/{*}project")
    return None if project is None else project.get("uuid")


def has_numa_topology(root: ET.Element) -> bool:
    """Return whether the guest has a NUMA topology, so that Nova chooses its CPUs and nodes."""
    return root.find("cpu/numa") is not None or root.find("numatune/memnode") is not None


def grant(root: ET.Element) -> Grant:
    """Read what Nova gave a guest with a NUMA topology from its persistent domain XML."""
    return Grant(
        {what: cpus for what, cpus in pins(root).items() if cpus},
        {
            number: int(cell.get("id", place))
            for place, cell in enumerate(root.iterfind("cpu/numa/cell"))
            for number in parse_ids(cell.get("cpus", ""))
        },
        CpuSet.union(
            parse_ids(each.get("vcpus", ""))
            for each in root.iterfind("cputune/vcpusched")
            if each.get("scheduler") in _REALTIME
        ),
        nodes(root),
    )


def pins(root: ET.Element) -> dict[Target, CpuSet]:
    """Read the CPU pins."""
    cputune = root.find("cputune")
    if cputune is None:
        return {}
    return {what: cpus for each in CPU_ASPECTS for what, cpus in ROWS[each].read(cputune).items()}


def nodes(root: ET.Element) -> CpuSet:
    """Read the nodes that the memory is bound to; empty if it is not bound."""
    numatune = root.find("numatune")
    found: dict[Target, CpuSet] = {} if numatune is None else ROWS[Aspect.MEMORY].read(numatune)
    return found.get(MEMORY, CpuSet())


def cpuset(root: ET.Element) -> CpuSet | None:
    """Read the CPUs that Nova lets all threads of a guest use; None if it names none."""
    vcpu = root.find("vcpu")
    text = None if vcpu is None else vcpu.get("cpuset")
    return CpuSet.parse(text) if text else None


def anywhere(root: ET.Element, host: Host) -> CpuSet:
    """Return the CPUs of threads without a pin."""
    return cpuset(root) or host.present


def iothreads(root: ET.Element) -> CpuSet:
    """Read the numbers of the iothreads; libvirt omits them if it assigned them itself."""
    numbered = CpuSet(int(each.get("id", "")) for each in root.iterfind("iothreadids/iothread"))
    return numbered or CpuSet(range(1, int(root.findtext("iothreads", "0")) + 1))


def memory_kib(root: ET.Element) -> int:
    """Read the current memory, which libvirt always writes in KiB."""
    return int(root.findtext("currentMemory") or root.findtext("memory") or 0)
