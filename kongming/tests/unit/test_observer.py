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

from kongming.allocation import target
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import EMULATOR, MEMORY, NO_QUOTA, QUOTA, Quota, iothread, vcpu
from kongming.hypervisor.observer import Observer
from kongming.hypervisor.process import QemuProcess
from kongming.hypervisor.reading import Part, Reading
from kongming.hypervisor.visibility import Visibility
from kongming.tests.kernel import PID, Kernel

NODES = CpuSet([0, 1])
ALL = CpuSet(range(4))
every = pytest.mark.parametrize("version", [1, 2, None])


@every
def test_equal_threads_give_one_value(tmp_path, version):
    observer = Kernel(tmp_path, version).observer()
    targets = [vcpu(0), vcpu(1), EMULATOR, iothread(1), MEMORY]
    assert observer.read(targets, NODES) == {
        **dict.fromkeys(targets[:4], Reading.of(ALL)),
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
def test_threads_of_the_kernel_belong_to_the_emulator(tmp_path, version):
    kernel = Kernel(tmp_path, version)
    kernel.thread(800, "vhost-700", cpus="2", group="emulator")
    assert [each.id for each in kernel.observer().threads_of(EMULATOR)] == [700, 701, 703, 800]


@pytest.mark.parametrize("version", [1, 2])
def test_a_thread_started_by_an_iothread_belongs_to_the_iothread(tmp_path, version):
    kernel = Kernel(tmp_path, version)
    kernel.thread(801, "worker", cpus="2", group="iothread1")
    read = kernel.observer().read([EMULATOR, iothread(1)], NODES)
    assert read[EMULATOR].common == ALL
    assert {part.value for part in read[iothread(1)].parts} == {ALL, CpuSet([2])}


@every
def test_a_thread_that_allocates_memory_from_another_node_is_found(tmp_path, version):
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


def test_a_missing_thread_is_left_out(tmp_path):
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


def test_a_process_that_ended_shows_no_values_and_hides_none(tmp_path):
    kernel = Kernel(tmp_path, None)
    observer = kernel.observer()
    for folder in kernel.proc.glob("700/task/*"):
        (folder / "status").unlink()
        folder.rmdir()
    (kernel.proc / "700/task").rmdir()
    assert observer.read([vcpu(0)], NODES) == {}
    assert not observer.hidden


def test_a_guest_whose_process_is_not_found_shows_no_values():
    observer = Observer("a", None, None, Visibility(), hidden="hidepid")
    assert observer.read([vcpu(0), MEMORY], NODES) == {}
    assert observer.threads_of(EMULATOR) == []
    assert (observer.memory_kib(), observer.cpus_above()) == (None, {})
    assert (observer.hidden, observer.is_found) == ("hidepid", False)
    assert observer.controls(lambda _groups: False)


@pytest.mark.parametrize("text", ["", "Name:\tx\nCpus_allowed_list:\t?\nMems_allowed_list:\t0\n"])
@pytest.mark.parametrize("version", [1, 2])
def test_an_invalid_thread_hides_the_guest_and_is_named_until_it_is_valid(
    tmp_path, caplog, version, text
):
    caplog.set_level("INFO")
    kernel = Kernel(tmp_path, version)
    status = kernel.proc / "704/status"
    right, odd = status.read_text(), text
    observer = kernel.observer()
    for written, found in ((odd, set()), (odd, set()), (right, {vcpu(0)})):
        status.write_text(written)
        assert observer.read([vcpu(0)], NODES).keys() == found
        # That needs no thread, and does not concern them.
        observer.read([QUOTA], NODES)
        assert observer.is_found is bool(found)
        assert (str(status) in observer.hidden) is not bool(found)
    assert [each.levelname for each in caplog.records] == ["WARNING", "INFO"]
    assert f"({status}: its content is not what a kernel" in caplog.messages[0]


@pytest.mark.parametrize("version", [1, 2])
def test_where_the_threads_of_a_group_are_odd_they_are_told_apart_by_their_names(
    tmp_path, caplog, version
):
    kernel = Kernel(tmp_path, version)
    tasks = kernel.folders("emulator")[0] / ("tasks" if version == 1 else "cgroup.threads")
    if version == 1:
        tasks = kernel.folders("emulator")[1] / "tasks"
    tasks.write_text("none\n")
    observer = kernel.observer()
    for _ in range(2):
        assert [each.id for each in observer.threads_of(EMULATOR)] == [700, 701, 703]
        # That of another group can be read.
        assert [each.id for each in observer.threads_of(vcpu(0))] == [704]
    (line,) = caplog.messages
    assert line.startswith(
        f"The threads of the control groups of guests can't be observed ({tasks}"
    )
    assert (str(tasks) in observer.hidden, observer.is_found) == (True, True)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("text", ["", "much", "10", "1 2 3"])
def test_a_quota_that_is_odd_is_not_observed(tmp_path, version, text):
    kernel = Kernel(tmp_path, version)
    name = "cpu.cfs_quota_us" if version == 1 else "cpu.max"
    (kernel.folders("vcpu1")[0] / name).write_text("x" if text == "10" and version == 1 else text)
    observer = kernel.observer()
    assert observer.read([QUOTA, vcpu(0)], NODES).keys() == {vcpu(0)}
    assert name in observer.hidden


def test_the_memory_of_a_guest_is_counted_as_far_as_permitted(tmp_path):
    kernel = Kernel(tmp_path, 2)
    observer = kernel.observer()
    assert observer.memory_kib() is None
    (kernel.proc / "700/numa_maps").write_text("7f default anon=1 N1=3 kernelpagesize_kB=4\n")
    assert observer.memory_kib() == {1: 12}


@pytest.mark.parametrize("version", [1, 2])
def test_groups_that_have_just_disappeared_hide_no_values(tmp_path, caplog, version):
    kernel = Kernel(tmp_path, version)
    observer = kernel.observer()
    kernel.cgroup.rename(tmp_path / "gone")
    assert [each.id for each in observer.threads_of(vcpu(1))] == [705]
    assert observer.read([QUOTA], NODES) == {}
    assert (observer.cpus_above(), observer.hidden) == ({}, "")
    assert not caplog.records


@pytest.mark.parametrize("version", [1, 2])
def test_invalid_parent_groups_narrow_no_values(tmp_path, version):
    kernel = Kernel(tmp_path, version)
    kernel.cpus(-1, "all")
    assert kernel.observer().cpus_above() == {}


def test_a_guest_without_groups_has_no_controllers_and_one_whose_groups_are_hidden_may_have(
    tmp_path,
):
    kernel = Kernel(tmp_path, None)
    assert not kernel.observer().controls(lambda _groups: True)
    process = QemuProcess(PID, kernel.proc)
    hidden = Observer("a", process, None, Visibility(), hidden_groups="not mounted")
    assert hidden.controls(lambda _groups: False)
    assert (hidden.hidden, hidden.is_found) == ("not mounted", True)
