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
"""What the kernel shows of a guest: each thread and each group that a target consists of."""

import pytest

from kongming import target
from kongming.cpuset import CpuSet
from kongming.hypervisor.reading import Part, Reading
from kongming.target import EMULATOR, MEMORY, NO_QUOTA, QUOTA, Quota, iothread, vcpu
from kongming.tests.kernel import Kernel

NODES = CpuSet([0, 1])
ALL = CpuSet(range(4))
every = pytest.mark.parametrize("version", [1, 2, None])


@every
def test_threads_that_are_all_the_same_give_one_value(tmp_path, version):
    observer = Kernel(tmp_path, version).observer()
    wanted = [vcpu(0), vcpu(1), EMULATOR, iothread(1), MEMORY]
    assert observer.read(wanted, NODES) == {
        **dict.fromkeys(wanted[:4], Reading.of(ALL)),
        MEMORY: Reading.of(NODES),
    }


@every
def test_a_thread_of_the_emulator_that_was_left_behind_is_found(tmp_path, version):
    kernel = Kernel(tmp_path, version)
    kernel.thread(703, "IO mon_iothread", cpus="1")
    reading = kernel.observer().read([EMULATOR], NODES)[EMULATOR]
    assert reading.common is None
    assert reading.parts[1] == Part(CpuSet([1]), "thread 703, IO mon_iothread")
    assert str(reading.parts[1]) == "1 (thread 703, IO mon_iothread)"


@pytest.mark.parametrize("version", [1, 2])
def test_the_kernels_own_threads_belong_to_the_emulator(tmp_path, version):
    kernel = Kernel(tmp_path, version)
    kernel.thread(800, "vhost-700", cpus="2", group="emulator")
    assert [each.id for each in kernel.observer().threads_of(EMULATOR)] == [700, 701, 703, 800]


@pytest.mark.parametrize("version", [1, 2])
def test_what_an_iothread_has_started_belongs_to_it(tmp_path, version):
    kernel = Kernel(tmp_path, version)
    kernel.thread(801, "worker", cpus="2", group="iothread1")
    read = kernel.observer().read([EMULATOR, iothread(1)], NODES)
    assert read[EMULATOR].common == ALL
    assert {part.value for part in read[iothread(1)].parts} == {ALL, CpuSet([2])}


@every
def test_a_thread_that_takes_memory_from_another_node_is_found(tmp_path, version):
    kernel = Kernel(tmp_path, version)
    kernel.thread(705, "CPU 1/KVM", nodes="1")
    reading = kernel.observer().read([MEMORY], NODES)[MEMORY]
    assert {part.value for part in reading.parts} == {NODES, CpuSet([1])}
    # Nodes without memory don't count.
    assert kernel.observer().read([MEMORY], CpuSet([1]))[MEMORY].common == CpuSet([1])


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("vcpu_number", [0, 1])
def test_a_quota_that_one_vcpu_has_lost_is_found(tmp_path, version, vcpu_number):
    kernel = Kernel(tmp_path, version)
    for number in (0, 1):
        kernel.quota(number, 50_000)
    assert kernel.observer().read([QUOTA], NODES)[QUOTA] == Reading.of(Quota(50_000))
    kernel.quota(vcpu_number, -1)
    reading = kernel.observer().read([QUOTA], NODES)[QUOTA]
    assert Part(NO_QUOTA, f"vCPU {vcpu_number}") in reading.parts
    assert reading.common is None


def test_what_is_not_there_is_left_out(tmp_path):
    observer = Kernel(tmp_path, None).observer()
    assert observer.read([vcpu(2), iothread(2), QUOTA, target.SHARES], NODES) == {}


def test_a_vcpu_whose_group_is_empty_is_found_by_its_name(tmp_path):
    kernel = Kernel(tmp_path, 1)
    for folder in kernel.folders("vcpu0"):
        (folder / "tasks").write_text("")
    kernel.thread(704, "CPU 0/KVM", cpus="3")
    assert kernel.observer().read([vcpu(0)], NODES) == {vcpu(0): Reading.of(CpuSet([3]))}


def test_a_thread_that_ended_meanwhile_is_left_out(tmp_path):
    kernel = Kernel(tmp_path, 2)
    (kernel.proc / "703/status").unlink()
    assert [each.id for each in kernel.observer().threads_of(EMULATOR)] == [700, 701]


def test_a_process_that_ended_is_an_error(tmp_path):
    kernel = Kernel(tmp_path, None)
    observer = kernel.observer()
    for folder in kernel.proc.glob("700/task/*"):
        (folder / "status").unlink()
        folder.rmdir()
    (kernel.proc / "700/task").rmdir()
    with pytest.raises(OSError, match="task"):
        observer.read([vcpu(0)], NODES)


def test_the_iothreads_that_run_are_counted(tmp_path):
    kernel = Kernel(tmp_path, 2)
    kernel.thread(802, "IO iothread12")
    assert kernel.observer().iothreads() == {1, 12}
