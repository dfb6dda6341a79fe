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
"""What a snapshot of the largest host takes: CPU time of one core; nothing else is running."""

from __future__ import annotations

from collections.abc import Callable
import json
import statistics
import time
from typing import Any
from uuid import UUID
from xml.etree import ElementTree as ET

from bench_bed import Bed, Row

from kongming.allocation.cpuset import CpuSet
from kongming.host import snapshot
from kongming.host.rules import Rules
from kongming.host.topology import Topology
from kongming.hypervisor import capabilities, occupancy
from kongming.hypervisor.host import parse_libvirt
from kongming.hypervisor.kernel_files import KernelFiles
from kongming.tests import machines

CPUS, THREADS, NODES, GUESTS, VCPUS = 8192, 2, 64, 1000, 8
RULES = Rules(reserved_cpus=CpuSet(range(8)))


def measure(bed: Bed, times: int) -> list[Row]:
    """A snapshot by libvirt's words, and one of a host that is known."""
    machine = _machine()
    libvirt = machines.Libvirt(machine)
    told, cpumap = libvirt.getCapabilities(), libvirt.getCPUMap()
    domains = [_domain(number) for number in range(GUESTS)]
    guests = [occupancy.parse(domain) for domain in domains]
    system = machines.write(machine, bed.root / "machine")
    files = KernelFiles(system=system, cgroup=bed.root / "machine")

    def read() -> dict[str, Any]:
        topology = capabilities.parse(told, parse_libvirt(told, cpumap))
        return _snapshot(topology, [occupancy.parse(domain) for domain in domains])

    def reread() -> dict[str, Any]:
        return _snapshot(machines.topology(files), guests)

    seen = reread()

    def parse() -> None:
        for xml in (told, *domains):
            ET.fromstring(xml)
        json.dumps(seen)

    what = f"snapshot of {CPUS:,} CPUs and {GUESTS:,} guests"
    return [
        _row(f"{what}, CPU time (floor: the XML, json.dumps)", times, read, parse),
        _row(f"{what}, host known (floor: json.dumps)", times, reread, lambda: json.dumps(seen)),
    ]


def _snapshot(topology: Topology, guests: list[Any]) -> dict[str, Any]:
    seen = snapshot.to_json(topology, guests, RULES)
    snapshot.digest(seen)
    return seen


def _row(what: str, times: int, ours: Callable[[], object], floor: Callable[[], object]) -> Row:
    spent, bare = (
        statistics.median(_cpu_time(call) for _ in range(times)) for call in (ours, floor)
    )
    return Row(what, f"{spent:.2f} s", f"{bare:.2f} s", f"{spent / bare:.1f}", "≤ 1 s")


def _cpu_time(call: Callable[[], object]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


def _machine() -> machines.Machine:
    cores, of_node = CPUS // THREADS, CPUS // THREADS // NODES

    def both_threads(first: int, count: int) -> str:
        return f"{first}-{first + count - 1},{first + cores}-{first + cores + count - 1}"

    return {
        "present": f"0-{CPUS - 1}",
        "online": f"0-{CPUS - 1}",
        "has_memory": f"0-{NODES - 1}",
        "cores": [[0, 0, core, 1024, both_threads(core, 1)] for core in range(cores)],
        "caches": [[3, "both", 32 << 10, both_threads(core, 8)] for core in range(0, cores, 8)],
        "nodes": {
            node: [both_threads(node * of_node, of_node), 1 << 28, [10] * NODES]
            for node in range(NODES)
        },
    }


def _domain(number: int) -> str:
    """Return the XML of a guest each vCPU of which has a CPU of its own, as Nova makes it."""
    pins = "".join(
        f"<vcpupin vcpu='{vcpu}' cpuset='{8 + number * VCPUS % (CPUS - 16) + vcpu}'/>"
        for vcpu in range(VCPUS)
    )
    return (
        f"<domain type='kvm' id='{number + 1}'><name>instance-{number:08x}</name>"
        f"<uuid>{UUID(int=number)}</uuid><metadata><nova:instance xmlns:nova="
        "'http://openstack.org/xmlns/libvirt/nova/1.1'><nova:owner><nova:project uuid='p'/>"
        "</nova:owner></nova:instance><kongming:baseline xmlns:kongming="
        "'http://openstack.org/xmlns/libvirt/kongming/1.0'/></metadata>"
        f"<vcpu placement='static'>{VCPUS}</vcpu><cputune>{pins}</cputune>"
        f"<numatune><memory mode='restrictive' nodeset='{number % NODES}'/></numatune>"
        f"<devices>{_DEVICES}</devices></domain>"
    )


# As many elements as a guest of Nova's has.
_DEVICES = "".join(
    f"<controller type='pci' index='{n}' model='pcie-root-port'><model name='pcie-root-port'/>"
    f"<target chassis='{n}' port='0x{n:x}'/><alias name='pci.{n}'/></controller>"
    for n in range(24)
)
