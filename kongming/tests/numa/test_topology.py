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

"""The host itself: it has the configured shape."""

from pathlib import Path

from kongming.tests.testbed import threads

MEMORY_LOST = 0.1
"""The part that a kernel keeps for itself, at most."""


def test_cpus_are_distributed_over_the_nodes(shape, nodes):
    each = shape.cpus // shape.nodes
    expected = {node: set(range(node * each, (node + 1) * each)) for node in range(shape.nodes)}
    assert nodes == expected
    assert threads.online_cpus() == set(range(shape.cpus))


def test_memory_is_distributed_over_the_nodes(shape, connection):
    each = shape.memory_mib / shape.nodes
    for node in range(shape.nodes):
        total_kib = connection.getMemoryStats(node)["total"]
        assert each * (1 - MEMORY_LOST) <= total_kib / 1024 <= each


def test_control_groups_are_of_the_expected_version(shape):
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    kinds = {mount[2] for mount in mounts if mount[2].startswith("cgroup")}
    assert kinds == {"cgroup2" if shape.cgroup == "v2" else "cgroup"}


def test_libvirt_reports_the_nodes(shape, connection):
    assert connection.getInfo()[4] == shape.nodes
    assert len(connection.getCellsFreeMemory(0, shape.nodes)) == shape.nodes
