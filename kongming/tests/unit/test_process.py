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

"""What the kernel tells of QEMU's process."""

from types import SimpleNamespace

import pytest

from kongming import target
from kongming.cpuset import CpuSet
from kongming.executor.placer import _memory_note
from kongming.executor.plan import Change, Plan
from kongming.hypervisor.process import Processes, QemuProcess

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


def test_a_qemu_that_has_no_vcpus_yet_is_found_when_it_has(proc):
    folder = proc / "12"
    folder.mkdir()
    (folder / "cmdline").write_text("qemu\0-uuid\0new\0-smp\0001\0")
    processes = Processes(proc)
    threads(folder, "qemu")
    assert processes.find("new") is None
    (folder / "task/0/comm").write_text("CPU 3/TCG\n")
    assert processes.find("new").pid == 12


def test_what_the_kernel_tells(proc):
    process = QemuProcess(7, proc)
    assert process.memory_kib() == {0: 12, 1: 120 + 5 * 2048}


def test_a_process_that_ended_tells_nothing(proc):
    with pytest.raises(OSError, match="4711"):
        QemuProcess(4711, proc).memory_kib()


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
def test_the_memory_that_stayed_behind_is_told(memory, note):
    change = Change(target.MEMORY, CpuSet([0, 1]), CpuSet([1]))
    done = Plan({target.MEMORY: CpuSet([1])}, {}, (change,), {})
    guest = SimpleNamespace(memory_kib=lambda: memory)
    assert _memory_note(done, guest) == note
