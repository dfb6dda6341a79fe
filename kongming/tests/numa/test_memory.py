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
asks for the mode "restrictive" are later ones accepted.
"""

import libvirt
import pytest

from kongming.tests.testbed import memory, threads

STRICT = libvirt.VIR_DOMAIN_NUMATUNE_MEM_STRICT
RESTRICTIVE = libvirt.VIR_DOMAIN_NUMATUNE_MEM_RESTRICTIVE
MEMORY_MIB = 64


@pytest.fixture
def guest(start):
    guest = start(memory_mib=MEMORY_MIB, allocated=True)
    assert sum(memory.memory_kib(guest.uuid).values()) >= MEMORY_MIB * 1024
    return guest


@pytest.fixture
def far(nodes):
    return max(nodes)


def code(refusal):
    return refusal.value.get_error_code()


def test_a_first_change_to_restrictive_lets_memory_follow_for_good(guest, nodes, far):
    assert guest.memory() == (STRICT, "")
    for node in (far, 0, far):
        guest.set_memory(numa_mode=RESTRICTIVE, numa_nodeset=str(node))
        assert guest.nodes() == {node}
        assert guest.memory() == (RESTRICTIVE, str(node))
        for thread in threads.vcpu_threads(guest.uuid).values():
            assert memory.allowed_nodes(thread) == str(node)
    # The mode need not be told again.
    guest.set_memory(numa_nodeset="0")
    assert guest.nodes() == {0}
    # To allow more moves nothing.
    guest.set_memory(numa_nodeset=f"0-{far}")
    assert guest.nodes() == {0}
    with pytest.raises(libvirt.libvirtError) as refusal:
        guest.set_memory(numa_mode=STRICT, numa_nodeset="0")
    assert code(refusal) == libvirt.VIR_ERR_OPERATION_INVALID


def test_several_nodes(guest, nodes, far):
    wanted = {0, far - 1} if far > 1 else {0, far}
    guest.set_memory(numa_mode=RESTRICTIVE, numa_nodeset=",".join(map(str, wanted)))
    assert guest.nodes() <= wanted


def test_a_first_change_of_nodes_alone_is_the_last(guest, far):
    guest.set_memory(numa_nodeset=str(far))
    assert guest.nodes() == {far}
    assert guest.memory() == (STRICT, str(far))
    for change in ({}, {"numa_mode": RESTRICTIVE}):
        with pytest.raises(libvirt.libvirtError) as refusal:
            guest.set_memory(numa_nodeset="0", **change)
        assert code(refusal) == libvirt.VIR_ERR_OPERATION_INVALID
    assert guest.nodes() == {far}


def test_a_refused_change_leaves_the_first_one_open(guest, far):
    refused = [{"numa_mode": RESTRICTIVE}, {"numa_mode": RESTRICTIVE, "numa_nodeset": "9"}]
    for change in refused:
        with pytest.raises(libvirt.libvirtError) as refusal:
            guest.set_memory(**change)
        assert code(refusal) == libvirt.VIR_ERR_CONFIG_UNSUPPORTED
    assert guest.memory() == (STRICT, "")
    guest.set_memory(numa_mode=RESTRICTIVE, numa_nodeset=str(far))
    guest.set_memory(numa_mode=RESTRICTIVE, numa_nodeset="0")
    assert guest.nodes() == {0}


def test_a_single_threaded_guest_moves_in_spite_of_the_error(start, far):
    guest = start(memory_mib=MEMORY_MIB, allocated=True, single_threaded=True)
    for node in (far, 0):
        with pytest.raises(libvirt.libvirtError) as refusal:
            guest.set_memory(numa_mode=RESTRICTIVE, numa_nodeset=str(node))
        assert code(refusal) == libvirt.VIR_ERR_SYSTEM_ERROR
        assert guest.nodes() == {node}
        assert guest.memory() == (STRICT, "")


def test_a_node_that_is_too_full_takes_what_it_can(start, shape, far):
    size = shape.memory_mib // shape.nodes
    first = start(memory_mib=size * 3 // 4, allocated=True)
    second = start(memory_mib=size // 2, allocated=True)
    first.set_memory(numa_mode=RESTRICTIVE, numa_nodeset="0")
    assert first.nodes() == {0}
    second.set_memory(numa_mode=RESTRICTIVE, numa_nodeset=str(far))
    assert second.nodes() == {far}

    second.set_memory(numa_nodeset="0")

    assert second.memory() == (RESTRICTIVE, "0")
    assert second.nodes() == {0, far}
