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

"""What the largest hosts cost: a host that is four times as large takes four times the steps."""

from dataclasses import replace
import functools

import pytest

from kongming.allocation.cpuset import CpuSet
from kongming.host import snapshot, violations
from kongming.host.rules import Rules
from kongming.host.topology import Topology
from kongming.hypervisor import capabilities
from kongming.hypervisor.kernel_files import KernelFiles
from kongming.terminal import host_snapshot, picture
from kongming.tests import machines
from kongming.tests.cost import lines
from kongming.tests.hosts import guest, host
from kongming.tests.thorough import THOROUGH, pairs

#: CPUs and guests; 8192 CPUs are the most that Linux has.
SIZES = ((2048, 250), (8192, 1000)) if THOROUGH else ((256, 32), (1024, 128))
RULES = Rules(reserved_cpus=CpuSet(range(4)))


def grows_with_its_size(call):
    """Return whether a call costs as much for each CPU and guest on both hosts."""
    small, large = (lines(call(*size)) for size in SIZES)
    # Quadratic would be sixteen times as much.
    return small > 0 and large < 5 * small


def placed(number, pins, **more):
    return replace(guest(number, pins, **more), touched=True)


def alone(cpus, guests):
    """Each vCPU has a CPU of its own; the siblings are another guest's, and memory is remote."""
    return [
        placed(n, ";".join(f"{vcpu}:{(n * 8 + vcpu) % cpus}" for vcpu in range(8)), nodes="0")
        for n in range(guests)
    ]


def pooled(cpus, guests):
    """All vCPUs of a guest are on all CPUs of a node, with those of others."""
    nodes = cpus // 128
    return [
        placed(n, f"0-7:{n % nodes * 64}-{n % nodes * 64 + 63}", nodes="0-1")
        for n in range(guests)
    ]


def nested(cpus, guests):
    """No two guests have the same CPUs, and each CPU has another crowd."""
    return [placed(n, f"0-7:{n}-{cpus - 1 - n}") for n in range(guests)]


def nodes_of(cpus, _guests):
    return host(cpus // 128, 64, 2, l3=8)


def one_node(cpus, _guests):
    return host(1, cpus // 2, 2, l3=cpus // 64)


def isolated(cpus, guests):
    topology = one_node(cpus, guests)
    (cell,) = topology.cells
    flagged = tuple(replace(cpu, isolated=True) for cpu in cell.cpus)
    return Topology((replace(cell, cpus=flagged),))


@pytest.mark.parametrize(
    ("shape", "placing"), pairs([nodes_of, one_node, isolated], [alone, pooled, nested])
)
def test_violations_are_found_in_steps_for_each_cpu_and_guest(shape, placing):
    def find(*size):
        return functools.partial(violations.find, shape(*size), placing(*size), RULES)

    assert grows_with_its_size(find)


def test_a_view_is_made_in_steps_for_each_cpu_and_guest():
    def make(*size):
        return functools.partial(snapshot.to_json, nodes_of(*size), alone(*size), RULES)

    assert grows_with_its_size(make)


@pytest.mark.parametrize(("shape", "placing"), [(nodes_of, alone), (one_node, pooled)])
def test_a_host_is_drawn_in_steps_for_each_cpu_and_guest(shape, placing):
    def draw(*size):
        return functools.partial(picture.draw, shape(*size), placing(*size), RULES)

    assert grows_with_its_size(draw)


def test_a_view_is_shown_in_steps_for_each_cpu_and_guest():
    def show(*size):
        shown = snapshot.to_json(nodes_of(*size), alone(*size), RULES)
        return lambda: [
            Topology.from_json(shown),
            *(column.human_readable() for column in host_snapshot.columns(shown).values()),
        ]

    assert grows_with_its_size(show)


def machine(cpus, threads=8):
    cores = cpus // threads
    nodes = cpus // 128
    return {
        "present": f"0-{cpus - 1}",
        "online": f"0-{cpus - 1}",
        "has_memory": f"0-{nodes - 1}",
        "cores": [
            [0, 0, core, 1024, f"{core * threads}-{core * threads + threads - 1}"]
            for core in range(cores)
        ],
        "caches": [[3, "both", 32 << 10, f"{first}-{first + 15}"] for first in range(0, cpus, 16)],
        "nodes": {n: [f"{n * 128}-{n * 128 + 127}", 1 << 28, [10] * nodes] for n in range(nodes)},
    }


def test_an_answer_of_libvirt_is_read_in_steps_for_each_cpu():
    def read(cpus, _guests):
        connection = machines.Libvirt(machine(cpus))
        xml, cpumap = connection.getCapabilities(), connection.getCPUMap()
        there = capabilities.parse_libvirt(xml, cpumap)
        return functools.partial(capabilities.parse, xml, there)

    assert grows_with_its_size(read)


def test_the_files_of_the_kernel_are_read_in_steps_for_each_cpu(tmp_path_factory):
    def read(cpus, _guests):
        folder = tmp_path_factory.mktemp("machine")
        files = KernelFiles(system=machines.write(machine(cpus), folder), cgroup=folder)
        return functools.partial(machines.topology, files)

    assert grows_with_its_size(read)


def test_a_known_host_needs_only_its_memory_read(tmp_path):
    system = machines.write(machine(512), tmp_path)
    files = KernelFiles(system=system, cgroup=tmp_path)
    first = lines(lambda: machines.topology(files))
    assert lines(lambda: machines.topology(files)) * 50 < first
