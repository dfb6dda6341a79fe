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

"""The testbed itself: what the other integration tests take for granted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import socket
import subprocess
import sys
import tempfile
from typing import Any
import uuid

from kombu.connection import Connection
import libvirt
import pytest

from kongming.tests.testbed import threads
from kongming.tests.testbed.broker import Broker, Queue, kombu_url
from kongming.tests.testbed.guest import destroy, start_guest
from kongming.tests.testbed.libvirtd import Libvirtd
from kongming.tests.testbed.process import patience, wait_until
from kongming.tests.testbed.qemu import without_kvm
from kongming.tests.testbed.session_libvirtd import SessionLibvirtd

# The other modules would not work without.
pytestmark = [pytest.mark.slow, pytest.mark.needs_mounts]

EMBEDDED = """
import pathlib, sys, threading
import libvirt
from kongming.tests.testbed import threads
from kongming.tests.testbed.embedded import embedded_uri
from kongming.tests.testbed.guest import destroy, start_guest

def run_events():
    while True:
        libvirt.virEventRunDefaultImpl()

libvirt.virEventRegisterDefaultImpl()
threading.Thread(target=run_events, daemon=True).start()
connection = libvirt.open(embedded_uri(pathlib.Path(sys.argv[1])))
domain = start_guest(connection, "instance-00000001")
try:
    domain.pinVcpu(0, (True, False))
    assert threads.vcpu_affinity(domain.UUIDString())[0] == {0}
finally:
    destroy(domain)
    connection.close()
"""


@pytest.fixture(scope="module")
def libvirtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirtd]:
    with Libvirtd(tmp_path_factory.mktemp("libvirtd")) as daemon:
        yield daemon


def pin_first_vcpu(domain: Any, cpu: int) -> None:
    host = range(max(threads.online_cpus()) + 1)
    domain.pinVcpu(0, tuple(each == cpu for each in host))


def test_broker_keeps_a_durable_queue_over_a_restart(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        broker.add_vhost("nova")
        with Connection(kombu_url(broker.transport_url("nova"))) as client:
            queue = client.SimpleQueue("events")
            queue.put("kept", delivery_mode="persistent")
            queue.close()
        wait_until(lambda: broker.queues("nova").get("events") == Queue(1, 0, 0), 5, "queued")
        assert broker.queues() == {}

        broker.restart()
        assert broker.queues("nova") == {"events": Queue(1, 0, 0)}

        broker.kill()
        assert not broker.answers()
        broker.start()
        assert broker.queues("nova") == {"events": Queue(1, 0, 0)}
    assert not broker.answers()


def test_a_pin_reaches_the_thread(libvirtd: Libvirtd) -> None:
    domain = start_guest(libvirt.open(libvirtd.uri), "instance-00000001", vcpus=3)
    instance_uuid = domain.UUIDString()
    assert list(threads.vcpu_threads(instance_uuid)) == [0, 1, 2]

    pin_first_vcpu(domain, 0)

    affinity = threads.vcpu_affinity(instance_uuid)
    assert affinity == {0: {0}, 1: threads.online_cpus(), 2: threads.online_cpus()}
    threads.set_affinity(threads.vcpu_threads(instance_uuid)[1], {0})
    assert threads.vcpu_affinity(instance_uuid)[1] == {0}
    destroy(domain)
    destroy(domain)
    assert not threads.is_running(instance_uuid)


@pytest.mark.parametrize("ending", [Libvirtd.stop, Libvirtd.kill])
def test_a_guest_outlives_the_daemon(libvirtd: Libvirtd, ending: Any) -> None:
    instance_uuid = str(uuid.uuid4())
    domain = start_guest(libvirt.open(libvirtd.uri), "instance-00000002", uuid=instance_uuid)
    pin_first_vcpu(domain, 0)

    ending(libvirtd)
    assert threads.vcpu_affinity(instance_uuid)[0] == {0}
    libvirtd.start()

    domain = libvirt.open(libvirtd.uri).lookupByUUIDString(instance_uuid)
    assert domain.isActive()
    assert domain.vcpuPinInfo()[0][0]
    pin_first_vcpu(domain, max(threads.online_cpus()))
    assert threads.vcpu_affinity(instance_uuid)[0] == {max(threads.online_cpus())}
    destroy(domain)


def test_a_paused_daemon_answers_later(libvirtd: Libvirtd) -> None:
    connection = libvirt.open(libvirtd.uri)
    libvirtd.pause()
    libvirtd.resume()
    assert connection.getLibVersion()


def test_a_single_threaded_guest_refuses_pins(libvirtd: Libvirtd) -> None:
    connection = libvirt.open(libvirtd.uri)
    domain = start_guest(connection, "instance-00000003", single_threaded=True)
    assert threads.vcpu_threads(domain.UUIDString()) == {}
    with pytest.raises(libvirt.libvirtError, match="cpu affinity is not supported") as refusal:
        pin_first_vcpu(domain, 0)
    assert refusal.value.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID
    destroy(domain)


def test_a_vcpu_can_be_plugged(libvirtd: Libvirtd) -> None:
    domain = start_guest(libvirt.open(libvirtd.uri), "instance-00000004", vcpus=1, max_vcpus=2)
    domain.setVcpus(2)
    assert list(threads.vcpu_threads(domain.UUIDString())) == [0, 1]
    destroy(domain)


def test_novas_numa_guest_starts(libvirtd: Libvirtd) -> None:
    domain = start_guest(libvirt.open(libvirtd.uri), "instance-00000005", granted=["0", "0"])
    assert threads.vcpu_affinity(domain.UUIDString()) == {0: {0}, 1: {0}}
    destroy(domain)


def test_a_libvirtd_treats_only_itself_as_the_same_host(tmp_path: Path) -> None:
    with Libvirtd(tmp_path, host_name="compute-2") as other:
        assert other.connect().getHostname() == "compute-2"
        other.restart()
        assert other.connect().getHostname() == "compute-2"
        assert socket.gethostname() != "compute-2"


def test_two_testbeds_do_not_meet(libvirtd: Libvirtd, tmp_path: Path) -> None:
    # Longer than a socket's path may be.
    root = tmp_path / ("x" * 100)
    with Libvirtd(root) as other:
        domains = [
            start_guest(libvirt.open(daemon.uri), "instance-00000006")
            for daemon in (libvirtd, other)
        ]
        assert libvirt.open(other.uri).numOfDomains() == 1
        pin_first_vcpu(domains[1], 0)
        ours, theirs = (domain.UUIDString() for domain in domains)
        assert threads.vcpu_affinity(ours)[0] == threads.online_cpus()
        assert threads.vcpu_affinity(theirs)[0] == {0}
    assert threads.is_running(ours)
    assert not threads.is_running(theirs)
    destroy(domains[0])


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach."""
    with tempfile.TemporaryDirectory(prefix="kongming-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder, "libvirt")


def lives_and_ends(libvirtd: Libvirtd) -> None:
    """Pin a guest, restart the daemon, and see the guest end with the testbed."""
    with libvirtd:
        domain = start_guest(libvirt.open(libvirtd.uri), "instance-00000001")
        instance_uuid = domain.UUIDString()
        pin_first_vcpu(domain, 0)
        assert threads.vcpu_affinity(instance_uuid) == {0: {0}, 1: threads.online_cpus()}
        libvirtd.kill()
        assert threads.is_running(instance_uuid)
        libvirtd.start()
        domain = libvirt.open(libvirtd.uri).lookupByUUIDString(instance_uuid)
        pin_first_vcpu(domain, max(threads.online_cpus()))
        assert threads.vcpu_affinity(instance_uuid)[0] == {max(threads.online_cpus())}
    assert not threads.is_running(instance_uuid)


def test_a_libvirtd_without_control_groups_pins_and_leaves_no_guest(tmp_path: Path) -> None:
    lives_and_ends(Libvirtd(tmp_path, controllers=()))


def test_a_libvirtd_of_one_user_pins_and_leaves_no_guest(open_folder: Path) -> None:
    lives_and_ends(SessionLibvirtd(open_folder))


def test_a_libvirtd_that_cannot_start_is_reported_with_its_log(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SessionLibvirtd, "settings", lambda _: {"listen_tcp": "x"})
    with pytest.raises(RuntimeError, match="listen_tcp"), SessionLibvirtd(open_folder):
        pass


def test_the_embedded_driver_needs_no_daemon(tmp_path_factory: pytest.TempPathFactory) -> None:
    # The name of tmp_path is too long for the sockets of QEMU.
    root = tmp_path_factory.mktemp("embed")
    program = [sys.executable, "-c", EMBEDDED, str(root)]
    subprocess.run(without_kvm(program, root), check=True, timeout=60 * patience())
