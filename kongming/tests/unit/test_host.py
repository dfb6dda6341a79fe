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

"""The host's CPUs, as the kernel tells of them."""

import pytest

from kongming.cpuset import CpuSet
from kongming.hypervisor import host


def test_the_kernels_files_are_read(tmp_path):
    for name, text in {
        "cpu/present": "0-7,9\n",
        "cpu/online": "0,2-5,9\n",
        "node/has_memory": "0,2\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    read = host.read_sysfs(tmp_path, tmp_path)
    assert read == host.Host(CpuSet.parse("0-7,9"), CpuSet([0, 2, 3, 4, 5, 9]), CpuSet([0, 2]), 1)
    (tmp_path / "cgroup.controllers").touch()
    (tmp_path / "node/has_memory").unlink()
    read = host.read_sysfs(tmp_path, tmp_path)
    assert (read.nodes, read.cgroup) == ({0}, 2)


@pytest.mark.parametrize(
    ("cgroup", "asked", "settable"),
    [
        (1, {0, 7}, {0}),
        (2, {0, 7}, {0, 7}),
        (None, {0, 7}, {0, 7}),
        (1, {7}, set()),
        (2, {7}, set()),
        (1, {0, 1}, {0, 1}),
    ],
)
def test_offline_cpus_can_be_set_with_cgroup_v2_only(cgroup, asked, settable):
    there = host.Host(CpuSet(range(8)), CpuSet(range(7)), cgroup=cgroup)
    assert there.settable(CpuSet(asked)) == settable


@pytest.mark.parametrize(
    ("uri", "here"),
    [
        ("qemu:///system", True),
        ("qemu:///system?socket=/run/libvirt/libvirt-sock", True),
        ("qemu+unix:///system", True),
        ("qemu:///embed?root=/tmp/x", True),
        ("qemu+ssh://host/system", False),
        ("qemu+tcp://host/system", False),
        ("test:///default", False),
    ],
)
def test_only_a_local_qemu_is_beside_this_kernel(uri, here):
    assert host.is_here(uri) is here
