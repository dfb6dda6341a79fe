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
"""Applied means every thread and every group; going back leaves none of them behind."""

import pytest

from kongming.tests.integration.conftest import applied, everywhere, status
from kongming.tests.integration.groups import group_of
from kongming.tests.testbed import threads
from kongming.tests.testbed.process import wait_until

CHECKED = "[executor]\ncheck_interval = 1\n"


def lose_quota(guest, vcpu):
    """Remove a vCPU's quota behind libvirt's back."""
    folder = group_of(guest, threads.vcpu_threads(guest.uuid)[vcpu], "cpu")
    for name, none in (("cpu.cfs_quota_us", "-1"), ("cpu.max", "max 100000")):
        if (folder / name).exists():
            (folder / name).write_text(none)


@pytest.mark.needs_mounts
def test_a_quota_that_any_vcpu_has_lost_is_set_again(cloud):
    guest = cloud.guest(vcpus=3)
    with cloud.daemon(options=CHECKED) as daemon:
        cloud.update(guest, vcpu_quota="50%")
        applied(daemon, guest)
        for number, vcpu in enumerate((2, 0, 1)):
            lose_quota(guest, vcpu)
            daemon.wait_log("drift (repinned)", times=number + 1)
            wait_until(
                lambda: set(threads.vcpu_quotas(guest.uuid).values()) == {(50_000, 100_000)},
                30,
                "each vCPU has its quota again",
            )
        assert "vCPU quota found none (vCPU 2), desired 50000/100000 µs" in daemon.log()


def emulator_threads(guest):
    """All of QEMU's threads that are none of a vCPU's or iothread's."""
    vcpus = threads.vcpu_threads(guest.uuid).values()
    others = threads.iothreads(guest.uuid).values()
    tasks = (threads.process_folder(guest.uuid) / "task").iterdir()
    return {int(task.name) for task in tasks} - {*vcpus, *others}


@pytest.mark.needs_mounts
def test_an_emulator_thread_on_other_cpus_is_moved(cloud, cpus):
    guest = cloud.guest(iothreads=1)
    with cloud.daemon(options=CHECKED) as daemon:
        cloud.update(guest, emulator_pinning=",".join(map(str, cpus[:2])))
        applied(daemon, guest)
        moved = max(emulator_threads(guest))
        threads.set_affinity(moved, [cpus[0]])
        daemon.wait_log("drift (repinned)")
        wait_until(lambda: threads.affinity(moved) == set(cpus[:2]), 30, "it is back")


@pytest.mark.needs_mounts
def test_going_back_leaves_no_thread_behind(cloud, cpus):
    guest = cloud.guest(iothreads=1)
    with cloud.daemon() as daemon:
        cloud.update(guest, emulator_pinning=str(cpus[-1]))
        applied(daemon, guest)
        # As one that was born while the emulator was pinned: that is its own affinity.
        born = max(emulator_threads(guest))
        threads.set_affinity(born, [cpus[-1]])
        cloud.update(guest)
        wait_until(lambda: daemon.record(guest.uuid) is None, 30, "nothing is kept")
        for thread in emulator_threads(guest):
            assert threads.affinity(thread) == threads.online_cpus()


@pytest.mark.needs_mounts
def test_a_narrower_former_set_is_the_baseline(cloud, cpus):
    guest = cloud.guest(vcpus=2)
    vcpu_threads = threads.vcpu_threads(guest.uuid)
    threads.set_affinity(vcpu_threads[0], [cpus[0]])
    for thread in emulator_threads(guest):
        threads.set_affinity(thread, [cpus[0]])
    with cloud.daemon() as daemon:
        cloud.update(guest, vcpu_pinning=str(cpus[-1]), emulator_pinning=str(cpus[-1]))
        applied(daemon, guest)
        guest.wait_on(cpus[-1])
        cloud.update(guest)
        wait_until(lambda: daemon.record(guest.uuid) is None, 30, "nothing is kept")
        assert guest.affinity() == {0: {cpus[0]}, 1: threads.online_cpus()}
        assert {threads.affinity(each) for each in emulator_threads(guest)} == {
            frozenset([cpus[0]])
        }


@pytest.mark.needs_mounts
def test_a_shield_above_the_guests_is_not_widened(cloud, cpus):
    # The first guest has libvirt make the group that they all are in.
    machine = group_of(guest := cloud.guest(), threads.emulator_thread(guest.uuid)).parents[1]
    guest.domain.destroy()
    wait_until(lambda: not [*machine.glob("qemu-*")], 30, "its groups are gone")
    shield = machine / "cpuset.cpus"
    before = shield.read_text()
    shield.write_text(str(cpus[0]))
    try:
        guest = cloud.guest()
        assert guest.affinity()[0] == {cpus[0]}
        with cloud.daemon() as daemon:
            cloud.update(guest, vcpu_pinning=str(cpus[-1]))
            record = status(daemon, guest, "refused")
            assert record.reason == "cpu_not_in_slice"
            assert str(machine) in record.message
            cloud.update(guest, vcpu_pinning=f"{cpus[0]},{cpus[-1]}")
            wait_until(lambda: daemon.record(guest.uuid).generation == 2, 30, "the next is judged")
            assert status(daemon, guest, "refused").reason == "cpu_not_in_slice"
            cloud.update(guest, vcpu_pinning=str(cpus[0]))
            applied(daemon, guest)
            assert shield.read_text() == f"{cpus[0]}\n"
        guest.domain.destroy()
        wait_until(lambda: not [*machine.glob("qemu-*")], 30, "its groups are gone")
    finally:
        shield.write_text(before)


def test_a_new_iothread_is_placed_without_waiting_for_the_check(cloud, cpus):
    guest = cloud.guest(iothreads=1)
    with cloud.daemon() as daemon:
        cloud.update(guest, iothread_pinning=str(cpus[-1]))
        applied(daemon, guest)
        guest.domain.addIOThread(2, 1)
        wait_until(
            lambda: (
                {threads.affinity(each) for each in threads.iothreads(guest.uuid).values()}
                == {frozenset([cpus[-1]])}
            ),
            30,
            "the new iothread is placed, too",
        )
        assert everywhere(guest) == guest.affinity()
