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

"""The installed service on a host of several nodes. The broker is the machine's."""

import json
from pathlib import Path
import subprocess
import sys

import libvirt
import pytest

from kongming.allocation.cpuset import CpuSet
from kongming.tests.integration.conftest import Cloud, everywhere, status
from kongming.tests.integration.groups import group_of
from kongming.tests.numa.conftest import ALLOCATED, TIMEOUT, Machine
from kongming.tests.testbed import memory, threads
from kongming.tests.testbed.process import wait_until


@pytest.fixture(scope="module")
def cloud(libvirtd, tmp_path_factory):
    cloud = Cloud(Machine(), libvirtd, tmp_path_factory.mktemp("cloud"))
    yield cloud
    cloud.close()


@pytest.fixture(scope="module")
def daemon(cloud):
    """One for all: its start takes long here."""
    with cloud.daemon(options="[executor]\ncheck_interval = 1\n") as daemon:
        yield daemon


@pytest.fixture
def guest(cloud):
    guest = cloud.guest(vcpus=2, **ALLOCATED)
    yield guest
    guest.domain.destroy()


def allowed_nodes(guest):
    return CpuSet.parse(memory.allowed_nodes(threads.emulator_thread(guest.uuid)))


def test_all_parts_of_a_guest_move_from_node_to_node_and_back(guest, update, daemon, nodes):
    emulator = threads.emulator_thread(guest.uuid)
    for node in (max(nodes), 0, max(nodes)):
        cpus = nodes[node]
        record = update(
            guest,
            vcpu_pinning=f"0:{min(cpus)};1:{max(cpus)}",
            emulator_pinning=str(CpuSet(cpus)),
            numa_nodes=str(node),
            vcpu_quota="50%",
        )
        assert guest.affinity() == {0: {min(cpus)}, 1: {max(cpus)}}
        assert threads.affinity(emulator) == cpus
        assert allowed_nodes(guest) == {node}
        there = memory.memory_kib(guest.uuid)
        assert set(there) == {node}
        assert f"KiB of memory on node {node}" in record.message
        assert "stayed" not in record.message
        assert threads.vcpu_quotas(guest.uuid) == dict.fromkeys((0, 1), (50_000, 100_000))
    moves = daemon.log().count(f"Instance {guest.uuid}: ")
    daemon.reload()
    update(guest)
    assert guest.affinity() == everywhere(guest)
    assert allowed_nodes(guest) == set(nodes)
    assert "baseline" not in guest.domain.XMLDesc()
    assert set(memory.memory_kib(guest.uuid)) == {max(nodes)}
    assert daemon.log().count(f"Instance {guest.uuid}: ") == moves + 1


def test_a_refused_part_moves_no_part(guest, update, nodes):
    before = set(memory.memory_kib(guest.uuid))
    record = update(guest, "refused", vcpu_pinning="0", numa_nodes=str(max(nodes) + 1))
    assert record.reason == "node_unknown"
    assert guest.affinity() == everywhere(guest)
    assert set(memory.memory_kib(guest.uuid)) == before
    assert allowed_nodes(guest) == set(nodes)


@pytest.mark.parametrize("besides", [[], [0]], ids=["only", "among-others"])
def test_a_cpu_that_goes_offline_and_comes_back_is_used_again(
    cloud, guest, update, daemon, last, offline, besides
):
    expected = {last, *besides}
    update(guest, vcpu_pinning=str(CpuSet(expected)), emulator_pinning=str(CpuSet(expected)))
    assert guest.affinity() == {0: expected, 1: expected}
    with offline(last):
        assert status(daemon, guest, "drifted").reason == "cpu_went_offline"
        if besides:
            guest.wait_affinity({0: besides, 1: besides})
        checks = daemon.log().count("\n")
        cloud.settle(daemon)
        message = f"Instance {guest.uuid}: drift (cpu_went_offline)"
        assert daemon.log().count(message) == 1
        # Nothing is tried again and again meanwhile.
        assert daemon.log().count("\n") - checks < 5
    guest.wait_affinity({0: expected, 1: expected})
    emulator = threads.emulator_thread(guest.uuid)
    wait_until(lambda: threads.affinity(emulator) == expected, TIMEOUT, "QEMU is back, too")
    status(daemon, guest, "applied")


def test_a_suspended_guest_resumes_without_its_cpu_and_gets_it_back(
    cloud, update, daemon, last, offline, tmp_path
):
    guest = cloud.guest(vcpus=2, firmware=tmp_path / "firmware")
    # As Nova does it: the domain is kept while its guest is saved.
    guest.domain.connect().defineXML(guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    update(guest, vcpu_pinning=str(last))
    guest.domain.managedSave()
    daemon.wait_log(f"Instance {guest.uuid}: suspended; its placement was removed")
    with offline(last):
        guest.domain.create()
        assert status(daemon, guest, "drifted").reason == "cpu_went_offline"
        assert last not in guest.affinity()[0]
    guest.wait_affinity({0: [last], 1: [last]})
    guest.domain.destroy()
    guest.domain.undefine()


def test_a_cpu_that_is_offline_is_refused_and_used_once_it_is_online(
    guest, update, daemon, last, offline
):
    with offline(last):
        assert update(guest, "refused", vcpu_pinning=str(last)).reason == "cpu_offline"
    guest.wait_affinity({0: [last], 1: [last]})
    status(daemon, guest, "applied")


def test_a_slice_that_allows_less_is_named(guest, update, daemon, last, shape):
    group = next(
        parent
        for parent in group_of(guest, threads.emulator_thread(guest.uuid)).parents
        if "qemu" not in str(parent)
    )
    update(guest, vcpu_pinning=str(last))
    allowed = group / "cpuset.cpus"
    if shape.cgroup == "v1":
        # There a group can't have less than those below it.
        with pytest.raises(OSError):
            allowed.write_text("0")
        return
    allowed.write_text("0")
    try:
        record = status(daemon, guest, "drifted")
        assert record.reason == "cpu_not_in_slice"
        assert str(group) in record.message
        record = update(guest, "refused", vcpu_pinning=f"0:{last}")
        assert record.reason == "cpu_not_in_slice"
        assert f"CPU {last}" in record.message
        assert str(group) in record.message
        assert "failed" not in daemon.log().partition(guest.uuid)[2]
    finally:
        # The kernel does not let it be emptied again.
        allowed.write_text(f"0-{last}")
    guest.wait_affinity({0: [last], 1: [last]})


def test_the_baseline_is_restored_completely(cloud, guest, update, daemon, last, offline):
    update(guest, vcpu_pinning="0")
    with offline(last):
        cloud.update(guest)
        guest.wait_affinity(everywhere(guest))
    guest.wait_affinity(everywhere(guest))
    assert last in guest.affinity()[0]
    wait_until(lambda: daemon.record(guest.uuid) is None, TIMEOUT, "nothing is kept")


def test_shares_within_the_kernels_limits(guest, update, shape):
    most, too_many = (10_000, 10_001) if shape.cgroup == "v2" else (262_144, 262_145)
    update(guest, cpu_shares=str(most))
    assert guest.domain.schedulerParametersFlags(1)["cpu_shares"] == most
    out_of_range = [1, too_many] if shape.cgroup == "v2" else [1]
    for shares in out_of_range:
        assert update(guest, "refused", cpu_shares=str(shares)).reason == "shares_out_of_range"
        assert guest.domain.schedulerParametersFlags(1)["cpu_shares"] == most
    update(guest, cpu_shares="2")
    assert guest.domain.schedulerParametersFlags(1)["cpu_shares"] == 2


def test_host_show(guest, update, daemon, nodes, last, offline):
    update(guest, vcpu_pinning=f"0:{min(nodes[max(nodes)])}")
    command = [Path(sys.executable).parent / "kongming-manage", "--config-file", daemon.conf]

    def show(*words):
        return subprocess.run(
            [*command, "host", "show", *words], capture_output=True, text=True, check=True
        ).stdout

    shown = json.loads(show("-f", "json"))
    assert {cell["id"]: {cpu["id"] for cpu in cell["cpus"]} for cell in shown["cells"]} == nodes
    (occupant,) = [one for one in shown["guests"] if one["instance_uuid"] == guest.uuid]
    assert occupant["pins"] == {"0": str(min(nodes[max(nodes)]))}
    with offline(last):
        picture = show()
    assert f"{len(nodes)} NUMA cells" in picture
    assert guest.uuid in picture
    assert f"{last} X" in picture
    assert max(len(line) for line in picture.splitlines()) <= 100
