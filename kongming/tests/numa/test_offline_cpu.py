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

"""What becomes of pins when a CPU goes and comes back.

cgroup v2 remembers a group's CPUs and gives them back. v1 forgets a CPU that goes, in
all groups: none can use it until somebody writes it into each of them again.
"""

import libvirt
import pytest

from kongming.tests.numa.conftest import ALLOCATED
from kongming.tests.testbed import host_cpus


@pytest.fixture
def guest(plain, nodes):
    """A guest that may run everywhere."""
    for vcpu in plain.affinity():
        plain.pin(vcpu, frozenset().union(*nodes.values()))
    return plain


@pytest.fixture
def left(nodes, last):
    """The CPUs that stay."""
    return frozenset().union(*nodes.values()) - {last}


def refused(change, *arguments):
    with pytest.raises(libvirt.libvirtError) as refusal:
        change(*arguments)
    return refusal.value.get_error_code()


def test_a_pinned_cpu_goes_and_comes_back(guest, shape, offline, last, left):
    everywhere = left | {last}
    guest.pin(0, {last})
    guest.pin(1, {last - 1, last})
    with offline(last):
        guest.wait_affinity({0: left, 1: {last - 1}, 2: left, 3: left})
        # libvirt doesn't notice.
        assert guest.pins() == [{last}, {last - 1, last}, everywhere, everywhere]
    assert guest.pins() == [{last}, {last - 1, last}, everywhere, everywhere]
    if shape.cgroup == "v2":
        guest.wait_affinity({0: {last}, 1: {last - 1, last}, 2: everywhere, 3: everywhere})
        return
    assert guest.affinity() == {0: left, 1: {last - 1}, 2: left}
    for cpus in ({last}, {last - 1, last}, everywhere):
        assert refused(guest.pin, 0, cpus) == libvirt.VIR_ERR_SYSTEM_ERROR
    assert refused(guest.pin_emulator, {last}) == libvirt.VIR_ERR_OPERATION_INVALID
    guest.pin(2, {last - 1})

    host_cpus.repair_v1_cpusets()

    guest.pin(0, {last})
    guest.pin(1, everywhere)
    guest.pin(2, everywhere)
    guest.pin(3, everywhere)
    assert guest.affinity() == {0: {last}, 1: everywhere, 2: everywhere}


def test_a_guest_of_meanwhile_lacks_the_cpu_on_v1(start, shape, offline, last, left):
    with offline(last):
        guest = start(vcpus=1)
        # For libvirt a vCPU that nobody pinned is on all CPUs that are there.
        assert guest.pins() == [left]
    assert guest.pins() == [left | {last}]
    if shape.cgroup == "v2":
        guest.pin(0, {last})
        assert guest.affinity() == {0: {last}}
    else:
        assert guest.affinity() == {0: left}
        assert refused(guest.pin, 0, {last}) == libvirt.VIR_ERR_SYSTEM_ERROR


def test_a_refused_pin_stays_behind_on_v2(guest, shape, offline, last):
    before = min(host_cpus.node_cpus()[0])
    guest.pin(0, {before})
    with offline(last):
        assert refused(guest.pin, 0, {last}) == libvirt.VIR_ERR_SYSTEM_ERROR
        assert guest.pins()[0] == {before}
    # On v2 the group kept what was refused.
    guest.wait_affinity(guest.affinity() | {0: {last if shape.cgroup == "v2" else before}})
    assert guest.pins()[0] == {before}


def test_the_former_pin_takes_back_a_refused_one(guest, offline, last):
    guest.pin(0, {0})
    with offline(last):
        assert refused(guest.pin, 0, {last}) == libvirt.VIR_ERR_SYSTEM_ERROR
        guest.pin(0, {0})
        assert guest.affinity()[0] == {0}
    assert guest.affinity()[0] == {0}


def test_a_pin_to_some_cpus_that_are_there(guest, shape, offline, last):
    guest.pin(0, {0})
    with offline(last):
        if shape.cgroup == "v2":
            guest.pin(0, {last - 1, last})
            assert guest.affinity()[0] == {last - 1}
        else:
            assert refused(guest.pin, 0, {last - 1, last}) == libvirt.VIR_ERR_SYSTEM_ERROR
            assert guest.affinity()[0] == {0}


def test_a_group_that_lost_all_its_cpus_loses_its_threads_on_v1(start, shape, offline, last):
    """They are moved to the group above: what is set for their own no longer reaches them."""
    guest = start(**ALLOCATED)
    guest.set_memory(numa_mode=libvirt.VIR_DOMAIN_NUMATUNE_MEM_RESTRICTIVE, numa_nodeset="0")
    guest.pin_emulator({last})
    with offline(last):
        pass
    if shape.cgroup == "v1":
        host_cpus.repair_v1_cpusets()
    far = max(host_cpus.node_cpus())
    guest.set_memory(numa_nodeset=str(far))
    assert guest.memory()[1] == str(far)
    assert guest.nodes() == ({far} if shape.cgroup == "v2" else {0})
