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
"""What does not answer: a libvirtd that hangs, QEMUs that hang, a job that keeps a guest.

Others are placed as usual meanwhile, each of these is logged once, and all comes right
by itself.
"""

from contextlib import contextmanager
from dataclasses import dataclass
import os
import re
import signal
import threading

import libvirt
import pytest

from kongming import exception
from kongming.hypervisor import monitor, occupancy
from kongming.tests.integration.conftest import applied, status
from kongming.tests.testbed import threads
from kongming.tests.testbed.hang import hold_monitor, hung
from kongming.tests.testbed.process import patience, wait_until

QUICK_KEEPALIVE = "[libvirt]\nkeepalive_interval = 1\nkeepalive_count = 1\n"


@dataclass(frozen=True)
class Hang:
    """A libvirtd that hangs, so long and so often."""

    seconds: float
    rounds: int
    options: str


SHORT = Hang(4, 1, QUICK_KEEPALIVE)
LONG = Hang(60, 10, "")


@contextmanager
def monitors_held(uri, *guests):
    """Somebody who has sent each guest's QEMU a command, and waits for the answer."""
    callers = [hold_monitor(uri, guest.uuid) for guest in guests]
    yield
    for caller in callers:
        caller.join(30 * patience())


@pytest.mark.parametrize(
    ("hang", "waiting"),
    [
        pytest.param(SHORT, 1, id="short-1"),
        pytest.param(SHORT, 8, id="short-8"),
        pytest.param(LONG, 1, id="long-1", marks=pytest.mark.slow),
        pytest.param(LONG, 4, id="long-4", marks=pytest.mark.slow),
        pytest.param(LONG, 50, id="long-50", marks=pytest.mark.slow),
    ],
)
def test_a_libvirtd_that_hung_finds_the_service_unchanged(cloud, cpus, hang, waiting):
    guests = [cloud.guest(vcpus=1) for _ in range(waiting)]
    with cloud.daemon(options=hang.options) as daemon:
        for number in range(hang.rounds):
            cpu = cpus[number % 2]
            cloud.libvirtd.pause()
            try:
                for guest in guests:
                    cloud.publish(guest, str(cpu))
                threading.Event().wait(hang.seconds)
                assert daemon.process.running
                daemon.wait_log("was lost; waiting for libvirt", times=number + 1)
            finally:
                cloud.libvirtd.resume()
            for guest in guests:
                guest.wait_on(cpu)
                applied(daemon, guest)
        assert "Traceback" not in daemon.log()
        assert daemon.stop() == 0


@pytest.mark.parametrize(
    "workers", [4, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 8, 16))]
)
def test_hung_guests_do_not_delay_the_others(cloud, cpus, workers):
    stuck = [cloud.guest(vcpus=1, iothreads=1) for _ in range(workers)]
    healthy = cloud.guest(vcpus=1)
    options = f"[executor]\nworkers = {workers}\ncheck_interval = 1\n"
    with cloud.daemon(options=options) as daemon:
        for guest in stuck:
            cloud.update(guest, vcpu_pinning=str(cpus[0]), iothread_pinning=str(cpus[0]))
            applied(daemon, guest)
        with hung(*(guest.uuid for guest in stuck)):
            # What they are is read from the kernel: nothing is wrong with their placement.
            cloud.settle(daemon)
            assert "failed" not in daemon.log()
            with monitors_held(cloud.libvirtd.uri, *stuck):
                for guest in stuck:
                    cloud.update(guest, vcpu_pinning=str(cpus[-1]), iothread_pinning=str(cpus[0]))
                for cpu in (cpus[0], cpus[-1]):
                    cloud.update(healthy, vcpu_pinning=str(cpu))
                    healthy.wait_on(cpu)
                for guest in stuck:
                    assert status(daemon, guest, "failed").reason == "guest_hung"
                daemon.reload()
                daemon.wait_log("Configuration reloaded")
                cloud.update(healthy, vcpu_pinning=str(cpus[0]))
                healthy.wait_on(cpus[0])
                for guest in stuck:
                    os.kill(threads.emulator_thread(guest.uuid), signal.SIGCONT)
        for guest in stuck:
            guest.wait_on(cpus[-1])
            applied(daemon, guest)
        for guest in stuck:
            assert daemon.log().count(f"Instance {guest.uuid}: failed (guest_hung)") == 1
        assert "Traceback" not in daemon.log()


def test_hung_guests_do_not_delay_a_service_that_starts(cloud, cpus):
    stuck = [cloud.guest(vcpus=2) for _ in range(4)]
    healthy = cloud.guest(vcpus=1)
    with cloud.daemon() as daemon:
        cloud.update(stuck[0], vcpu_pinning=f"0:{cpus[0]}")
        applied(daemon, stuck[0])
    uri = cloud.libvirtd.uri
    before = _occupants(uri)
    with hung(*(guest.uuid for guest in stuck)), monitors_held(uri, *stuck):
        # Longer than other clients may take.
        wait_until(lambda: _are_hung(stuck), 30, "the guests count as hung")
        assert _occupants(uri) == before
        with cloud.daemon(options="[executor]\nworkers = 1\n"):
            cloud.update(healthy, vcpu_pinning=str(cpus[-1]))
            healthy.wait_on(cpus[-1])
        for guest in stuck:
            os.kill(threads.emulator_thread(guest.uuid), signal.SIGCONT)


def _occupants(uri):
    return {each.instance_uuid: each for each in occupancy.Occupancy().read(libvirt.open(uri))}


def _are_hung(guests):
    for guest in guests:
        try:
            monitor.state(guest.domain)
        except exception.GuestHung:
            continue
        return False
    return True


def test_a_service_with_hung_guests_ends_at_once(cloud, cpus):
    guest = cloud.guest(vcpus=1, iothreads=1)
    with (
        cloud.daemon(options="[executor]\nworkers = 1\n") as daemon,
        hung(guest.uuid),
        monitors_held(cloud.libvirtd.uri, guest),
    ):
        cloud.publish(guest, str(cpus[0]))
        assert status(daemon, guest, "failed").reason == "guest_hung"
        assert daemon.stop() == 0
        os.kill(threads.emulator_thread(guest.uuid), signal.SIGCONT)


@pytest.mark.needs_mounts
def test_a_guest_that_a_job_keeps_is_placed_when_the_job_has_ended(cloud, cpus, tmp_path):
    guest, other = cloud.guest(vcpus=1), cloud.guest(vcpus=1)
    image = tmp_path / "image"
    os.mkfifo(image)
    reader = os.open(image, os.O_RDONLY | os.O_NONBLOCK)
    # Nobody reads what it writes.
    job = threading.Thread(target=lambda: guest.domain.coreDump(str(image), libvirt.VIR_DUMP_LIVE))
    with cloud.daemon(options="[executor]\nworkers = 1\nretry_interval_max = 1\n") as daemon:
        job.start()
        wait_until(lambda: guest.domain.jobInfo()[0] != 0, 30, "the job is under way")
        cloud.publish(guest, str(cpus[0]))
        cloud.publish(other, str(cpus[0]))
        other.wait_on(cpus[0])
        record = status(daemon, guest, "pending")
        daemon.wait_log(f"Instance {guest.uuid}: waiting (guest_busy)")
        assert guest.affinity() == {0: threads.online_cpus()}
        wait_until(lambda: not _drained(reader) and not job.is_alive(), 30, "the job has ended")
        guest.wait_on(cpus[0])
        assert applied(daemon, guest).generation == record.generation
        logged = re.findall(r"waiting \(guest_busy\).*", daemon.log())
        assert len(logged) == len({*logged})
        assert " ERROR " not in daemon.log()
    os.close(reader)


def _drained(reader):
    try:
        return os.read(reader, 1 << 20)
    except BlockingIOError:
        return b""
