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

"""How the memory of a running guest is moved to other nodes, by libvirt's own means.

A guest as Nova makes it has no <numatune>. Then the first change decides: only if it
requests the mode "restrictive" are later ones accepted.
"""

import libvirt
import pytest

from kongming.tests.numa.conftest import ALLOCATED, MEMORY_MIB
from kongming.tests.testbed import memory, threads

STRICT = libvirt.VIR_DOMAIN_NUMATUNE_MEM_STRICT
RESTRICTIVE = libvirt.VIR_DOMAIN_NUMATUNE_MEM_RESTRICTIVE


@pytest.fixture
def guest(start):
    guest = start(**ALLOCATED)
    assert sum(memory.memory_kib(guest.uuid).values()) >= MEMORY_MIB * 1024
    return guest


@pytest.fixture
def far(nodes):
    return max(nodes)


def code(refusal):
    return refusal.value.get_error_code()


def test_a_first_change_to_restrictive_lets_memory_follow_for_good(guest, nodes, far):
    refused = [{"numa_mode": RESTRICTIVE}, {"numa_mode": RESTRICTIVE, "numa_nodeset": "9"}]
    for change in refused:
        # A refused one is not the first.
        with pytest.raises(libvirt.libvirtError) as refusal:
            guest.set_memory(**change)
        assert code(refusal) == libvirt.VIR_ERR_CONFIG_UNSUPPORTED
        assert guest.memory() == (STRICT, "")
    for node in (far, 0, far):
        guest.set_memory(numa_mode=RESTRICTIVE, numa_nodeset=str(node))
        assert guest.nodes() == {node}
        assert guest.memory() == (RESTRICTIVE, str(node))
        for thread in threads.vcpu_threads(guest.uuid).values():
            assert memory.allowed_nodes(thread) == str(node)
    # The mode need not be set again.
    guest.set_memory(numa_nodeset="0")
    assert guest.nodes() == {0}
    # To allow more moves nothing.
    guest.set_memory(numa_nodeset=f"0-{far}")
    assert guest.nodes() == {0}
    with pytest.raises(libvirt.libvirtError) as refusal:
        guest.set_memory(numa_mode=STRICT, numa_nodeset="0")
    assert code(refusal) == libvirt.VIR_ERR_OPERATION_INVALID


def test_a_first_change_of_nodes_alone_is_the_last(guest, far):
    guest.set_memory(numa_nodeset=str(far))
    assert guest.nodes() == {far}
    assert guest.memory() == (STRICT, str(far))
    for change in ({}, {"numa_mode": RESTRICTIVE}):
        with pytest.raises(libvirt.libvirtError) as refusal:
            guest.set_memory(numa_nodeset="0", **change)
        assert code(refusal) == libvirt.VIR_ERR_OPERATION_INVALID
    assert guest.nodes() == {far}


def test_a_single_threaded_guest_moves_in_spite_of_the_error(single_threaded, far):
    guest = single_threaded
    for node in (far, 0):
        with pytest.raises(libvirt.libvirtError) as refusal:
            guest.set_memory(numa_mode=RESTRICTIVE, numa_nodeset=str(node))
        assert code(refusal) == libvirt.VIR_ERR_SYSTEM_ERROR
        assert guest.nodes() == {node}
        assert guest.memory() == (STRICT, "")
