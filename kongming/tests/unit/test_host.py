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

"""The host's CPUs and its memory, as the kernel tells of them, or libvirt."""

from pathlib import Path
from xml.etree import ElementTree as ET

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


def test_cpus_that_any_group_above_a_guest_lacks_are_no_use_to_it():
    there = host.Host(CpuSet(range(8)), CpuSet(range(6)), cgroup=1)
    groups = {Path("/a"): CpuSet(range(8)), Path("/a/b"): CpuSet(range(1, 5)), Path("/a/b/c"): {2}}
    below = there.of_groups(2, groups)
    assert below.cgroup == 2
    assert below.barred == (("/a/b", CpuSet([0, 5])), ("/a/b/c", CpuSet([1, 3, 4])))
    assert (below.usable, below.online) == ({2}, there.online)
    assert (there.usable, there.barred) == (there.online, ())
    assert below.of_groups(1, {}).usable == there.online


def test_libvirts_maps_reach_to_the_last_cpu_that_is_there():
    there = host.Host(CpuSet([0, 9]), CpuSet([0]))
    assert there.map_length == 10


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("MemTotal:  2048 kB\nMemFree:   1024 kB\n", (2048, 1024)),
        ("Node 1 MemTotal: 8 kB\nNode 1 MemFree: 0 kB\n", (8, 0)),
        ("MemTotal: 8 kB\n", (8, None)),
        ("MemFree: 8 kB\n", (0, 8)),
        (None, (0, None)),
    ],
)
def test_memory_that_the_kernel_does_not_tell_of_is_none_or_unknown(tmp_path, text, found):
    meminfo = tmp_path / "meminfo"
    if text is not None:
        meminfo.write_text(text)
    assert host.memory_kib(meminfo) == found


@pytest.mark.parametrize(
    ("size", "unit", "kib"),
    [
        ("2048", "B", 2),
        ("2047", "bytes", 1),
        ("3", "KiB", 3),
        ("3", "MiB", 3072),
        ("3", "GiB", 3 << 20),
        ("3", "TiB", 3 << 30),
    ],
)
def test_sizes_of_libvirt_are_told_in_kib(size, unit, kib):
    assert host.kib(size, unit) == kib
    cell = ET.fromstring(f"<cell><memory unit='{unit}'>{size}</memory></cell>")
    assert host.cell_memory_kib(cell) == kib


@pytest.mark.parametrize(
    ("content", "kib"), [("", 0), ("<memory/>", 0), ("<memory>5</memory>", 5)]
)
def test_a_cell_of_libvirts_may_have_no_memory_and_no_unit(content, kib):
    assert host.cell_memory_kib(ET.fromstring(f"<cell>{content}</cell>")) == kib


def test_cpus_that_go_offline_are_seen(tmp_path):
    online = tmp_path / "cpu/online"
    online.parent.mkdir()
    for cpus in ("0-3", "0,2-3", "0-3"):
        online.write_text(f"{cpus}\n")
        assert str(host.online_cpus(tmp_path)) == cpus


def test_nodes_are_told_in_order_and_those_without_memory_left_out(tmp_path):
    assert host.node_ids(tmp_path) == []
    assert host.memory_nodes(tmp_path) == {0}
    memory = {0: "MemTotal: 0 kB", 2: "MemTotal: 8 kB", 10: None, 11: "MemTotal: 9 kB"}
    for node, text in memory.items():
        folder = tmp_path / f"node/node{node}"
        folder.mkdir(parents=True)
        if text:
            (folder / "meminfo").write_text(text)
    (tmp_path / "node/node1x").mkdir()
    assert host.node_ids(tmp_path) == [0, 2, 10, 11]
    assert host.memory_nodes(tmp_path) == {2, 11}
    (tmp_path / "node/has_memory").write_text("0,2,10\n")
    assert host.memory_nodes(tmp_path) == {2}
    (tmp_path / "node/has_memory").write_text("10\n")
    assert host.memory_nodes(tmp_path) == {0}
