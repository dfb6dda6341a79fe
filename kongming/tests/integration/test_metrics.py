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

"""The metrics of the installed service, while its broker and libvirtd come and go."""

from pathlib import Path
import socket
from urllib.error import URLError

import pytest

from kongming.tests.integration.scraping import enabled, scrape, wait_value
from kongming.tests.testbed.process import free_port, wait_until


@pytest.fixture
def port():
    return free_port()


def listeners(process):
    """The TCP ports that a process listens on."""
    inodes = set()
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        inodes.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def test_no_metrics_are_served_by_default(cloud):
    with cloud.daemon() as daemon:
        assert listeners(daemon.process.pid) == set()


def test_a_guest_is_counted(cloud, cpus, port):
    guest = cloud.guest()
    with cloud.daemon(options=enabled(port)) as daemon:
        assert listeners(daemon.process.pid) == {port}
        assert scrape(port)["applied"] == 0
        cloud.publish(guest, str(cpus[-1]))
        wait_value(port, "applied", 1)
        assert scrape(port)["process_resident_memory_bytes"] > 0
        assert daemon.stop() == 0
    with pytest.raises(URLError):
        scrape(port)


def test_the_broker_becomes_unavailable_and_available_again(cloud, port):
    with cloud.daemon(options=enabled(port)):
        assert scrape(port)["kongming_broker_connected"] == 1
        cloud.broker.stop()
        try:
            wait_value(port, "kongming_broker_connected", 0)
            assert scrape(port)["kongming_libvirt_connected"] == 1
        finally:
            cloud.broker.start()
        wait_value(port, "kongming_broker_connected", 1)


def test_libvirtd_becomes_unavailable_and_available_again(cloud, port):
    with cloud.daemon(options=enabled(port)):
        assert scrape(port)["kongming_libvirt_connected"] == 1
        cloud.libvirtd.stop()
        try:
            wait_value(port, "kongming_libvirt_connected", 0)
            assert scrape(port)["kongming_broker_connected"] == 1
        finally:
            cloud.libvirtd.start()
        wait_value(port, "kongming_libvirt_connected", 1)


def test_a_libvirtd_that_hangs_does_not_hold_up_a_scrape(cloud, cpus, port):
    guest = cloud.guest()
    with cloud.daemon(options=enabled(port)):
        cloud.libvirtd.pause()
        try:
            cloud.publish(guest, str(cpus[-1]))
            wait_value(port, "pending", 1)
        finally:
            cloud.libvirtd.resume()
        wait_value(port, "applied", 1)


def test_an_occupied_port_prevents_the_start(cloud, port):
    daemon = cloud.daemon(options=enabled(port))
    with socket.create_server(("127.0.0.1", port)):
        daemon.start_soon()
        wait_until(lambda: not daemon.process.running, 60, "the service has ended")
    assert daemon.stop() == 2
    logged = [line for line in daemon.log().splitlines() if "CRITICAL" in line]
    assert len(logged) == 1
    assert f"Can't start: [metrics] listen_address 127.0.0.1, listen_port {port}: " in logged[0]
    assert "Traceback" not in daemon.log()
