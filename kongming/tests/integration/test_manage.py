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

"""kongming-manage, with a real libvirtd and real QEMU guests."""

from dataclasses import replace
from pathlib import Path
import subprocess
import sys

import libvirt
import pytest

from kongming import exception
from kongming.hypervisor import capabilities, session
from kongming.hypervisor.host import read
from kongming.hypervisor.kernel_files import KernelFiles

COMMAND = Path(sys.executable).with_name("kongming-manage")


def test_host_show_draws_this_machine_and_its_guests(cloud, cpus, tmp_path):
    pinned, floating = cloud.guest(vcpus=2), cloud.guest()
    other = cloud.guest(nova=False)
    for guest, vcpu, cpu in ((pinned, 0, 0), (pinned, 1, 1), (other, 0, 1)):
        guest.domain.pinVcpu(vcpu, tuple(n == cpus[cpu] for n in range(cpus[-1] + 1)))
    config = tmp_path / "manage.conf"
    config.write_text(f"[libvirt]\nconnection_uri = {cloud.libvirtd.uri}\n")
    drawn = subprocess.run(
        [COMMAND, "--config-file", config, "host", "show"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = {
        guest.uuid: line
        for line in drawn.partition("\n\nViolations")[0].splitlines()
        for guest in (pinned, floating, other)
        if guest.uuid in line
    }
    assert lines[pinned.uuid].endswith(f"0:{cpus[0]}; 1:{cpus[1]}")
    assert lines[other.uuid].endswith("(not Nova's)")
    assert lines[floating.uuid] in drawn.partition("Floating guests")[2]
    assert "CPUs that guests share" in drawn
    assert f"  CPU {cpus[1]} is shared by instance " in drawn.partition("\n\nViolations\n")[2]


# Without the system call get_mempolicy libvirt has a single cell of its own making.
@pytest.mark.needs_mounts
def test_libvirt_reports_the_same_of_this_machine_as_the_kernel(libvirtd):
    def known_to_libvirt(topology):
        return [
            (
                replace(cell, free_kib=None, cpus=()),
                [(cpu.id, cpu.socket, cpu.core, cpu.siblings) for cpu in cell.cpus],
            )
            for cell in topology.cells
        ]

    with session.read_only(libvirtd.uri) as connection:
        by_kernel, by_libvirt = (
            capabilities.read(connection, files) for files in (KernelFiles(), None)
        )
        host = read(connection, KernelFiles())
    assert known_to_libvirt(by_kernel) == known_to_libvirt(by_libvirt)
    assert {cpu.id for cpu in by_kernel.cpus if cpu.online} == host.online
    assert by_kernel.unassigned == ()
    assert {cell.id for cell in by_kernel.cells if cell.memory_kib} == host.nodes
    assert all(0 < cell.free_kib < cell.memory_kib for cell in by_kernel.cells if cell.memory_kib)


def test_the_connection_is_read_only(cloud):
    guest = cloud.guest()
    with (
        pytest.raises(exception.LibvirtForbids, match="read-only"),
        session.read_only(cloud.libvirtd.uri) as connection,
    ):
        connection.lookupByUUIDString(guest.uuid).destroy()
    assert guest.domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING


def test_a_libvirtd_that_hangs_is_not_waited_for(libvirtd):
    libvirtd.pause()
    try:
        with (
            pytest.raises(exception.HypervisorUnavailable, match="did not answer within"),
            session.read_only(libvirtd.uri, timeout=0.5),
        ):
            pass
    finally:
        libvirtd.resume()
