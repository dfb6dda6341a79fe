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

from kongming.tests.testbed import threads


def emulator(guest):
    """The affinity of the emulator's main thread."""
    return threads.affinity(int(threads.process_folder(guest.uuid).name))


def test_vcpus_on_different_nodes(plain, nodes):
    wanted = {vcpu: nodes[vcpu % len(nodes)] for vcpu in plain.affinity()}
    for vcpu, cpus in wanted.items():
        plain.pin(vcpu, cpus)
    assert plain.affinity() == wanted
    assert plain.pins() == list(wanted.values())


def test_a_vcpu_on_two_nodes(plain, nodes):
    across = {min(nodes[0]), max(nodes[max(nodes)])}
    plain.pin(0, across)
    assert plain.affinity()[0] == across


def test_the_emulator_alone(plain, nodes):
    before = plain.affinity()
    plain.pin_emulator(nodes[max(nodes)])
    assert emulator(plain) == nodes[max(nodes)]
    assert plain.affinity() == before
