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
"""A RabbitMQ whose memory or disk alarm is on: it takes no messages, and all else goes on.

libvirt is its test driver: no guest is needed here.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from kongming.tests.databases import instance
from kongming.tests.integration.scraping import enabled, scrape, wait_value
from kongming.tests.testbed.control_plane import ControlPlane
from kongming.tests.testbed.daemon import EXECUTOR, HostProcess
from kongming.tests.testbed.process import free_port, wait_until

#: Twice as many as all workers have threads.
REQUESTS = 16
ALARMS = {
    "memory": ("set_vm_memory_high_watermark 0.00001", "set_vm_memory_high_watermark 0.4"),
    "disk": ("set_disk_free_limit 100000GB", "set_disk_free_limit 50MB"),
}
BLOCKED, FREE = "RabbitMQ accepts no messages", "RabbitMQ accepts messages again"


@contextmanager
def alarm(broker, kind):
    on, off = ALARMS[kind]
    broker.run(f"rabbitmqctl {on}")
    try:
        wait_until(lambda: alarms(broker), 30, "the alarm is on")
        yield
    finally:
        broker.run(f"rabbitmqctl {off}")
        wait_until(lambda: not alarms(broker), 30, "the alarm is off")


def alarms(broker):
    return "alarm" in broker.run("rabbitmqctl eval rabbit_alarm:get_alarms().") or (
        "resource_limit" in broker.run("rabbitmqctl eval rabbit_alarm:get_alarms().")
    )


@pytest.fixture
def ports():
    return {"conductor": free_port(), "executor": free_port()}


@pytest.fixture
def plane(broker, tmp_path, ports):
    options = f"[conductor]\nhost_timeout = 1\n{enabled(ports['conductor'])}"
    url = broker.transport_url()
    with ControlPlane(
        tmp_path / "control", transport_url=url, conductors=1, options=options
    ) as plane:
        yield plane


@pytest.fixture
def host(broker, tmp_path, ports):
    with HostProcess(
        tmp_path / "host",
        EXECUTOR,
        connection_uri="test:///default",
        host="alarmed",
        options=f"[DEFAULT]\ntransport_url = {broker.transport_url()}\n"
        f"[executor]\npull_interval = 1\n[conductor]\nhost_timeout = 1\n"
        f"{enabled(ports['executor'])}",
    ) as host:
        yield host


def path_of(number):
    return f"/v1/allocations/{instance(number)}"


def put(plane, number, query=""):
    return plane.api.request("PUT", path_of(number) + query, {"allocation": {"cpu_shares": 5}})


def at_once(work):
    with ThreadPoolExecutor(REQUESTS) as pool:
        return [answer.status for answer in pool.map(work, range(1, REQUESTS + 1))]


@pytest.mark.parametrize("kind", ["memory", pytest.param("disk", marks=pytest.mark.slow)])
def test_a_broker_that_is_full_stops_neither_api_nor_host(broker, plane, host, ports, kind):
    wait_value(ports["executor"], "kongming_conductor_available", 1)
    with alarm(broker, kind):
        assert at_once(lambda number: put(plane, number)) == [201] * REQUESTS
        # No conductor got a hint, but the API does what it knows itself.
        removed = at_once(lambda number: plane.api.request("DELETE", path_of(number)))
        assert removed == [204] * REQUESTS
        assert at_once(lambda number: put(plane, number)) == [201] * REQUESTS
        assert len(plane.api.get("/v1/allocations")["allocations"]) == REQUESTS
        assert plane.api.request("GET", "/healthcheck").status == 200
        answer = put(plane, 1, "?dry_run=true")
        assert (answer.status, answer.body["errors"][0]["code"]) == (503, "conductor_unresponsive")
        assert "memory or disk alarm" in answer.body["errors"][0]["detail"]
        host.wait_log("No conductor is responding", timeout=60)
        assert scrape(ports["executor"])["kongming_conductor_available"] == 0
        for port in ports.values():
            assert scrape(port)["kongming_broker_connected"] == 1
        assert plane.api.request("GET", "/healthcheck").status == 200
    # Everything goes on by itself: the hints are sent, hosts request again, dry runs are answered.
    for number in range(1, REQUESTS + 1):
        plane.wait_status(instance(number), "absent", timeout=60)
    wait_value(ports["executor"], "kongming_conductor_available", 1)
    wait_until(lambda: put(plane, 1, "?dry_run=true").status == 200, 60, "a dry run")
    logs = [host.log(), plane.conductors[0].log()]
    for log in logs:
        assert "RabbitMQ is unavailable" not in log
        assert "RabbitMQ is available again" not in log
    for log in (*logs, plane.api.process.log.read_text()):
        # Once for each process, however many connections are blocked.
        assert log.count(BLOCKED) <= 2
        assert "Traceback" not in log
    assert host.log().count(BLOCKED) == host.log().count(FREE) == 1


@pytest.mark.slow
def test_services_that_start_during_an_alarm_become_ready(broker, plane, host, ports):
    host.stop()
    with alarm(broker, "memory"):
        host.start()
        assert scrape(ports["executor"])["kongming_broker_connected"] == 1
        host.wait_log("No conductor is responding", timeout=60)
    wait_value(ports["executor"], "kongming_conductor_available", 1)
