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

from kongming.hypervisor import host


def test_the_kernels_files_are_read(tmp_path):
    (tmp_path / "present").write_text("0-7,9\n")
    (tmp_path / "online").write_text("0,2-5,9\n")
    cpus = host.read_sysfs(tmp_path)
    assert cpus.count == 10
    assert cpus.online == {0, 2, 3, 4, 5, 9}


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
