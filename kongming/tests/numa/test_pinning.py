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

"""Pins across the nodes of the host, by libvirt's own means."""

import pytest

from kongming.tests.testbed import threads


@pytest.fixture(scope="module")
def guest(start, shape):
    return start(vcpus=shape.nodes)


def emulator(guest):
    """The affinity of the emulator's main thread."""
    return threads.affinity(int(threads.process_folder(guest.uuid).name))


def test_each_vcpu_on_another_node(guest, nodes):
    for node, cpus in nodes.items():
        guest.pin(node, cpus)
    assert guest.affinity() == nodes
    assert guest.pins() == list(nodes.values())


def test_a_vcpu_on_two_nodes(guest, nodes):
    across = {min(nodes[0]), max(nodes[max(nodes)])}
    guest.pin(0, across)
    assert guest.affinity()[0] == across


def test_the_emulator_alone(guest, nodes):
    before = guest.affinity()
    guest.pin_emulator(nodes[max(nodes)])
    assert emulator(guest) == nodes[max(nodes)]
    assert guest.affinity() == before
