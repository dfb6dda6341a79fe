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

"""The host's CPUs and its memory, as the kernel reports them, or libvirt."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from kongming.allocation.cpuset import CpuSet
from kongming.hypervisor import host
from kongming.hypervisor.kernel_files import KernelFiles


class Libvirt:
    """A libvirt with the CPUs of the host, and two nodes, of which one has memory."""

    def __init__(self, count=10, online="0,2-5,9"):
        self.count = count
        self.online = online
        self.calls = []

    def getCPUMap(self):  # noqa: N802
        self.calls.append("map")
        online = CpuSet.parse(self.online)
        return self.count, [cpu in online for cpu in range(16)], len(online)

    def getCapabilities(self):  # noqa: N802
        self.calls.append("capabilities")
        cpus = "".join(f"<cpu id='{number}'/>" for number in range(self.count))
        return (
            "<capabilities><host><topology><cells><cell id='0'/><cell id='1'><memory>5</memory>"
            f"<cpus>{cpus}</cpus></cell></cells></topology></host></capabilities>"
        )


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def files(tmp_path):
    """The files of a host of CPUs 0 to 7 and 9, and of nodes 0 and 2 with memory."""
    write(tmp_path, cpu__present="0-7,9\n", cpu__online="0,2-5,9\n", node__has_memory="0,2\n")
    return KernelFiles(system=tmp_path, cgroup=tmp_path / "cgroup", proc=tmp_path)


def lines(caplog):
    found = [(each.levelname, each.getMessage()) for each in caplog.records]
    caplog.clear()
    return found


@pytest.mark.parametrize(
    ("group", "version"),
    [
        ("cpuset/tasks", 1),
        ("cpu,cpuacct/tasks", 1),
        ("cgroup.controllers", 2),
        ("systemd/tasks", None),
        ("cpuacct/tasks", None),
        ("unified/cgroup.controllers", None),
    ],
)
def test_the_files_of_the_kernel_are_read_and_the_cgroup_version_is_detected(
    files, group, version
):
    write(files.cgroup, **{group: ""})
    read = host.read(Libvirt(), files)
    assert read == host.Host(
        CpuSet.parse("0-7,9"), CpuSet.parse("0,2-5,9"), CpuSet([0, 2]), version
    )
    assert not files.visibility.gaps()


def test_a_remote_host_is_described_by_libvirt():
    assert host.read(Libvirt(), None) == host.Host(
        CpuSet(range(10)), CpuSet.parse("0,2-5,9"), CpuSet([1])
    )


ODD = {
    "gone": None,
    "empty": "",
    "no list": "all of them\n",
    "cut off": "0-",
    "huge": "0-99999999999999999999\n",
    "more than the kernel can have": "0-8192\n",
    "negative": "-1\n",
    "no text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
@pytest.mark.parametrize("name", ["cpu/present", "cpu/online"])
def test_an_unusable_cpu_file_is_replaced_by_libvirt_and_logged_once(files, caplog, name, content):
    caplog.set_level("INFO")
    path = files.system / name
    right = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for _ in range(2):
        read = host.read(Libvirt(), files)
        assert (read.present, read.online) == (CpuSet(range(10)), CpuSet.parse("0,2-5,9"))
        # What can be read still counts.
        assert read.nodes == {0, 2}
    ((level, line),) = lines(caplog)
    assert (level, line.startswith(f"{path} can't be read (")) == ("WARNING", True)
    assert line.endswith("what libvirt reports is used instead")
    assert host.watched_cpus(files) is None
    path.write_bytes(right)
    assert host.read(Libvirt(), files).present == CpuSet.parse("0-7,9")
    assert lines(caplog) == [("INFO", f"{path} can be read again")]
    assert host.watched_cpus(files) == CpuSet.parse("0,2-5,9")


def test_an_unreadable_file_is_logged_with_the_reason(files, caplog, monkeypatch):
    def refuse(path, *_arguments):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("kongming.hypervisor.files.os.open", refuse)
    read = host.read(Libvirt(), files)
    assert (read.online, read.nodes) == (CpuSet.parse("0,2-5,9"), {1})
    logged = [line for _level, line in lines(caplog)]
    assert f"{files.system}/cpu/present can't be read (Permission denied): " in logged[0]
    assert len(logged) == len(set(logged)) == 3


@pytest.mark.parametrize(
    ("count", "online", "expected"),
    [
        # lxcfs shows the CPUs of the container; libvirt has those of the host.
        (10, "0-9", "CPU 0,2-5,9 of 10 online, libvirt shows CPU 0-9 of 10"),
        # libvirt itself may be in such a container.
        (10, "0", "CPU 0,2-5,9 of 10 online, libvirt shows CPU 0 of 10"),
        (12, "0,2-5,9", "CPU 0,2-5,9 of 10 online, libvirt shows CPU 0,2-5,9 of 12"),
    ],
)
def test_where_libvirt_has_other_cpus_than_the_files_libvirt_counts(
    files, caplog, count, online, expected
):
    caplog.set_level("INFO")
    for _ in range(2):
        connection = Libvirt(count, online)
        read = host.read(connection, files)
        assert (read.present, read.online) == (CpuSet(range(count)), CpuSet.parse(online))
        # Both are read once more before they count as different.
        assert connection.calls == ["map", "map", "capabilities", "map"]
    ((level, line),) = lines(caplog)
    assert (level, expected in line) == ("WARNING", True)
    assert host.watched_cpus(files) is None
    assert host.agreed_cpus(Libvirt(), files)
    assert lines(caplog) == [("INFO", f"The CPUs of {files.system} can be trusted again")]
    assert host.watched_cpus(files) == CpuSet.parse("0,2-5,9")


def test_a_cpu_that_appears_between_the_two_answers_is_no_difference(files, caplog):
    class Later(Libvirt):
        def getCPUMap(self):  # noqa: N802
            (files.system / "cpu/online").write_text("0-5,9\n")
            return super().getCPUMap()

    connection = Later(online="0-5,9")
    assert host.read(connection, files).online == CpuSet.parse("0-5,9")
    assert connection.calls == ["map", "map"]
    assert not caplog.records


@pytest.mark.parametrize(
    ("cgroup", "requested", "settable"),
    [
        (1, {0, 7}, {0}),
        (2, {0, 7}, {0, 7}),
        (None, {0, 7}, {0, 7}),
        (1, {7}, set()),
        (2, {7}, set()),
        (1, {0, 1}, {0, 1}),
    ],
)
def test_offline_cpus_can_be_set_with_cgroup_v2_only(cgroup, requested, settable):
    there = host.Host(CpuSet(range(8)), CpuSet(range(7)), cgroup=cgroup)
    assert there.settable(CpuSet(requested)) == settable


def test_cpus_that_any_parent_group_of_a_guest_lacks_are_not_usable():
    there = host.Host(CpuSet(range(8)), CpuSet(range(6)), cgroup=1)
    groups = {Path("/a"): CpuSet(range(8)), Path("/a/b"): CpuSet(range(1, 5)), Path("/a/b/c"): {2}}
    below = there.of_groups(2, groups)
    assert below.cgroup == 2
    assert below.barred == (("/a/b", CpuSet([0, 5])), ("/a/b/c", CpuSet([1, 3, 4])))
    assert (below.usable, below.online) == ({2}, there.online)
    assert (there.usable, there.barred) == (there.online, ())
    assert below.of_groups(1, {}).usable == there.online


def test_cpumaps_for_libvirt_reach_to_the_last_present_cpu():
    there = host.Host(CpuSet([0, 9]), CpuSet([0]))
    assert there.map_length == 10


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("MemTotal:  2048 kB\nMemFree:   1024 kB\n", (2048, 1024)),
        ("Node 1 MemTotal: 8 kB\nNode 1 MemFree: 0 kB\n", (8, 0)),
        ("MemTotal: 8 kB\n", (8, None)),
        ("MemFree: 8 kB\n", (0, 8)),
        ("", None),
        ("Memory: much\n", None),
        (None, None),
    ],
)
def test_memory_that_the_kernel_does_not_report_is_zero_or_unknown(tmp_path, text, found):
    meminfo = tmp_path / "meminfo"
    if text is not None:
        meminfo.write_text(text)
    assert host.memory_kib(KernelFiles(), str(meminfo)) == found


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
def test_sizes_from_libvirt_are_in_kib(size, unit, kib):
    assert host.kib(size, unit) == kib
    cell = ET.fromstring(f"<cell><memory unit='{unit}'>{size}</memory></cell>")
    assert host.cell_memory_kib(cell) == kib


@pytest.mark.parametrize(
    ("content", "kib"), [("", 0), ("<memory/>", 0), ("<memory>5</memory>", 5)]
)
def test_a_cell_from_libvirt_may_lack_memory_and_unit(content, kib):
    assert host.cell_memory_kib(ET.fromstring(f"<cell>{content}</cell>")) == kib


def test_cpus_that_go_offline_are_noticed(files):
    for cpus in ("0-3", "0,2-3", "0-3"):
        (files.system / "cpu/online").write_text(f"{cpus}\n")
        assert str(host.watched_cpus(files)) == cpus


def test_nodes_are_listed_in_order_without_those_that_have_no_memory(tmp_path):
    files = KernelFiles(system=tmp_path)
    assert host.node_ids(files) == []
    # Without such a folder the kernel may be built without NUMA, or hide it.
    assert host.memory_nodes(files) is None
    memory = {0: "MemTotal: 0 kB", 2: "MemTotal: 8 kB", 10: None, 11: "MemTotal: 9 kB"}
    for node, text in memory.items():
        folder = tmp_path / f"node/node{node}"
        folder.mkdir(parents=True)
        if text:
            (folder / "meminfo").write_text(text)
    (tmp_path / "node/node1x").mkdir()
    assert host.node_ids(files) == [0, 2, 10, 11]
    assert host.memory_nodes(files) == {2, 11}
    (tmp_path / "node/has_memory").write_text("0,2,10\n")
    assert host.memory_nodes(files) == {2}
    (tmp_path / "node/has_memory").write_text("10\n")
    assert host.memory_nodes(files) == {0}


@pytest.mark.parametrize("name", ["has_memory", "node1/meminfo"])
def test_nodes_with_an_invalid_file_are_those_of_libvirt(tmp_path, caplog, name):
    files = KernelFiles(system=tmp_path)
    write(tmp_path, cpu__present="0-9", cpu__online="0,2-5,9")
    write(tmp_path, node__node0__meminfo="MemTotal: 8 kB", node__node1__meminfo="MemTotal: 8 kB")
    path = tmp_path / "node" / name
    path.write_text("?")
    for _ in range(2):
        assert host.read(Libvirt(), files).nodes == {1}
    assert len(lines(caplog)) == 1
    path.write_text("0-1" if name == "has_memory" else "MemTotal: 8 kB")
    assert host.read(Libvirt(), files).nodes == {0, 1}
    assert not files.visibility.gaps()
