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

"""What the kernel shows of QEMU's process."""

from types import SimpleNamespace

import pytest

from kongming.allocation import target
from kongming.allocation.cpuset import CpuSet
from kongming.executor.placing.placer import _memory_note
from kongming.executor.placing.plan import Change, Plan
from kongming.hypervisor.process import NOT_FOUND, Processes, QemuProcess, has_own_pids

UUID = "5f0c3b52-6a0e-4c6e-9a5f-0d6a4f0b8c11"
OTHER = "5f0c3b52-6a0e-4c6e-9a5f-0d6a4f0b8c12"
MAPS = """\
55d0 default file=/usr/bin/qemu mapped=100 N0=100 kernelpagesize_kB=4
7f00 default anon=32 dirty=32 N0=2 N1=30 kernelpagesize_kB=4
7f80 default file=/memfd:guest\\040ram mapped=5 N1=5 kernelpagesize_kB=2048
7fff default stack anon=1 dirty=1 N0=1 kernelpagesize_kB=4
"""


def threads(folder, *names):
    for number, name in enumerate(names):
        (folder / f"task/{number}").mkdir(parents=True)
        (folder / f"task/{number}/comm").write_text(f"{name}\n")


@pytest.fixture
def proc(tmp_path):
    for pid, guest in {1: "", 7: UUID, 9: OTHER}.items():
        folder = tmp_path / str(pid)
        folder.mkdir()
        uuid = f"\0-uuid\0{guest}\0" if guest else "\0"
        (folder / "cmdline").write_text(f"qemu{uuid}-smp\0001\0")
        (folder / "numa_maps").write_text(MAPS)
        threads(folder, "qemu-system-x86", "CPU 0/KVM")
    (tmp_path / "self").mkdir()
    return tmp_path


def test_the_process_of_a_guest_is_found_and_remembered(proc):
    processes = Processes(proc)
    assert processes.find(UUID).pid == 7
    assert processes.find("none") is None
    (proc / "7").rename(proc / "8")
    assert processes.find(UUID).pid == 8
    assert processes.find(OTHER).pid == 9


@pytest.mark.parametrize(
    "names",
    [(), ("virt-what",), ("CPU 0",), ("xCPU 0/KVM",)],
    ids=["ended", "one", "near", "other"],
)
def test_a_process_that_only_names_a_guest_is_not_its_qemu(proc, names):
    for pid in (3, 12):
        folder = proc / str(pid)
        folder.mkdir()
        (folder / "cmdline").write_text(f"tool\0-uuid\0{UUID}\0")
        threads(folder, *names)
    assert Processes(proc).find(UUID).pid == 7


def test_a_qemu_without_vcpus_is_found_once_it_has_some(proc):
    folder = proc / "12"
    folder.mkdir()
    (folder / "cmdline").write_text("qemu\0-uuid\0new\0-smp\0001\0")
    processes = Processes(proc)
    threads(folder, "qemu")
    assert processes.find("new") is None
    (folder / "task/0/comm").write_text("CPU 3/TCG\n")
    assert processes.find("new").pid == 12


def test_a_process_is_described_by_the_kernels_files(proc):
    process = QemuProcess(7, proc)
    assert process.memory_kib() == {0: 12, 1: 120 + 5 * 2048}
    (proc / "7/numa_maps").write_bytes(b"\xff\n" + MAPS.encode())
    assert process.memory_kib() == {0: 12, 1: 120 + 5 * 2048}


def test_a_process_that_ended_shows_no_values(proc):
    with pytest.raises(OSError, match="4711"):
        QemuProcess(4711, proc).memory_kib()


@pytest.fixture
def alone(proc):
    """A /proc in which no guest is, but that is otherwise as it should be."""
    for pid in (7, 9):
        (proc / str(pid) / "cmdline").unlink()
    (proc / "self/ns").mkdir()
    (proc / "self/ns/pid").symlink_to("pid:[4026531836]")
    (proc / "self/mounts").write_text("proc /proc proc rw,relatime 0 0\n")
    return proc


def why(proc):
    processes = Processes(proc)
    assert processes.find(UUID) is None
    return processes.why_hidden()


def test_a_guest_without_a_known_reason_to_be_hidden_is_not_found(alone):
    assert why(alone) == NOT_FOUND


def test_a_namespace_without_the_guest_hides_it(alone):
    (alone / "self/ns/pid").unlink()
    assert why(alone) == NOT_FOUND
    (alone / "self/ns/pid").symlink_to("pid:[4026532000]")
    assert "its own PID namespace" in why(alone)


@pytest.mark.parametrize("hides", ["1", "2", "4", "noaccess", "invisible", "ptraceable"])
def test_a_proc_that_hides_processes_is_named_with_its_option(alone, hides):
    mounts = alone / "self/mounts"
    mounts.write_text(
        f"proc /proc proc rw,relatime 0 0\nproc /proc proc rw,hidepid={hides},gid=5 0 0\n"
        "tmpfs /tmp tmpfs rw,hidepid=0 0 0\n"
    )
    # The first process is visible: the capability is there.
    assert why(alone) == NOT_FOUND
    (alone / "1/cmdline").unlink()
    assert f"hidepid={hides}: mount it with gid= of" in why(alone)
    mounts.write_text("proc /proc proc rw,hidepid=0 0 0\n")
    assert why(alone) == NOT_FOUND
    for elsewhere in ("proc /elsewhere proc rw", "tmpfs /proc tmpfs rw"):
        mounts.write_text(f"{elsewhere},hidepid=2 0 0\n")
        assert why(alone) == NOT_FOUND
    mounts.write_text("proc /proc proc rw,hidepid=2 0 0\nodd\n")
    assert why(alone) == NOT_FOUND
    mounts.unlink()
    assert why(alone) == NOT_FOUND


def test_an_unreadable_or_missing_proc_hides_all_guests(alone, tmp_path, monkeypatch):
    assert "/absent can't be listed: No such file" in why(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert why(tmp_path / "empty") == f"there is no {tmp_path / 'empty'}: mount it"


def test_a_formerly_visible_guest_that_ended_does_not_prove_visibility(alone):
    (alone / "7/cmdline").write_text(f"qemu\0-uuid\0{UUID}\0")
    processes = Processes(alone)
    assert processes.find(UUID).pid == 7
    (alone / "7/cmdline").unlink()
    assert processes.find(UUID) is None
    (alone / "self/ns/pid").unlink()
    assert has_own_pids(alone) is False
    (alone / "self/ns/pid").symlink_to("pid:[4026532000]")
    assert "its own PID namespace" in processes.why_hidden()


def test_visible_guests_prove_that_this_one_is_not_hidden(alone, proc):
    (alone / "self/ns/pid").unlink()
    (alone / "self/ns/pid").symlink_to("pid:[4026532000]")
    (proc / "9/cmdline").write_text(f"qemu\0-uuid\0{OTHER}\0")
    processes = Processes(alone)
    assert processes.find(OTHER).pid == 9
    assert processes.find(UUID) is None
    assert processes.why_hidden() == NOT_FOUND


@pytest.mark.parametrize(
    "status",
    [
        "Name:\tqemu\n",
        "Name:\tqemu\nCpus_allowed_list:\t\nMems_allowed_list:\t0\n",
        "Name:\tqemu\nCpus_allowed_list:\t0-\nMems_allowed_list:\t0\n",
        "Name:\tqemu\nCpus_allowed_list:\t0\nMems_allowed_list:\tx\n",
        "",
        "\x00\x01",
    ],
)
def test_a_status_that_is_odd_is_named(proc, status):
    (proc / "7/status").write_text(status)
    with pytest.raises(OSError, match="its content is not what a kernel writes") as raised:
        QemuProcess(7, proc).read_threads([7])
    assert raised.value.filename == str(proc / "7/status")


@pytest.mark.parametrize(
    ("memory", "note"),
    [
        ({1: 2048}, "2048 KiB of memory on node 1"),
        (
            {0: 12, 1: 2048, 2: 0},
            "2048 KiB of memory on node 1, 12 KiB stayed on node 0",
        ),
        (None, "the memory can't be counted (that needs CAP_SYS_PTRACE)"),
    ],
)
def test_memory_that_stayed_behind_is_reported(memory, note):
    change = Change(target.MEMORY, CpuSet([0, 1]), CpuSet([1]))
    done = Plan({target.MEMORY: CpuSet([1])}, {}, (change,), {})
    guest = SimpleNamespace(memory_kib=lambda: memory, hidden="")
    assert _memory_note(done, guest) == note
