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

"""The legacy trigger: real events, guests and libvirt; Nova's API emulated over real HTTP."""

import sys
import uuid

import pytest

from kongming.tests.integration.conftest import KEY, applied
from kongming.tests.integration.status import Status
from kongming.tests.testbed import process
from kongming.tests.testbed.nova import Nova
from kongming.tests.testbed.nova_api import Fault, NovaApi
from kongming.tests.testbed.process import wait_until

HOST = "compute-1"


@pytest.fixture
def api():
    with NovaApi() as api:
        yield api


@pytest.fixture
def legacy(cloud):
    """Publishes legacy notifications."""
    notifier = Nova(cloud.broker.transport_url(), exchange=cloud.exchange, topic="notifications")

    def publish(instance_uuid, name="update", host=HOST):
        payload = {"instance_id": instance_uuid, "host": host, "metadata": {KEY: "not looked at"}}
        notifier.send(f"compute.instance.{name}", payload, f"compute.{host}")

    return publish


def options(api, more=""):
    return f"trigger = legacy\n{api.options(more)}"


def run(daemon, *command):
    return process.run([sys.executable, "-m", *command, "--config-file", str(daemon.conf)])


def test_an_event_places_the_guest_as_nova_requests(cloud, api, legacy, cpus):
    guest = cloud.guest()
    api.add(HOST, {}, instance_uuid=guest.uuid)
    with cloud.daemon(options=options(api)) as daemon:
        for cpu in (cpus[-1], cpus[0]):
            api.servers[guest.uuid].metadata[KEY] = str(cpu)
            legacy(guest.uuid)
            guest.wait_on(cpu)
            applied(daemon, guest)
        del api.servers[guest.uuid].metadata[KEY]
        legacy(guest.uuid)
        wait_until(lambda: daemon.record(guest.uuid) is None, 30, "back to its baseline")
        assert guest.affinity() == {vcpu: set(cpus) for vcpu in guest.affinity()}
        assert "Traceback" not in daemon.log()


def test_while_nova_does_not_answer_guests_are_kept_as_they_are(cloud, api, legacy, cpus):
    guest = cloud.guest()
    api.add(HOST, {KEY: str(cpus[-1])}, instance_uuid=guest.uuid)
    with cloud.daemon(options=options(api)) as daemon:
        applied(daemon, guest)
        api.fault = Fault(503, "<html>")
        api.servers[guest.uuid].metadata[KEY] = str(cpus[0])
        legacy(guest.uuid)
        daemon.wait_log("Nova's API can't be used")
        guest.pin(cpus[0])
        daemon.wait_log("drift (repinned)")
        guest.wait_on(cpus[-1])
        daemon.process.kill()
        daemon.start()
        api.fault = None
        guest.wait_on(cpus[0])
        assert "Traceback" not in daemon.log()
        assert "sesame" not in daemon.log()


def test_resync_by_hand(cloud, api, cpus):
    guest = cloud.guest()
    api.add(HOST, {}, instance_uuid=guest.uuid)
    with cloud.daemon(options=options(api)) as daemon:
        api.servers[guest.uuid].metadata[KEY] = str(cpus[-1])
        found = run(daemon, "kongming.cmd.manage", "resync", guest.uuid, "-f", "value")
        assert (found.returncode, found.stderr) == (0, "")
        assert found.stdout.startswith(f"{guest.uuid} applied")
        shown = run(daemon, "kongming.cmd.manage", "allocation", "show", guest.uuid)
        assert "Nova's API" in shown.stdout
        api.servers[guest.uuid].metadata[KEY] = str(cpus[0])
        found = run(daemon, "kongming.cmd.manage", "resync", "-f", "value")
        assert found.stdout.startswith(f"{guest.uuid} applied")
        guest.wait_on(cpus[0])
    found = run(daemon, "kongming.cmd.manage", "resync")
    assert found.returncode == 1
    assert "does not run" in found.stderr


def test_an_unresponsive_nova_is_logged_before_a_user_notices(cloud, api):
    api.add(HOST, {})
    daemon = cloud.daemon(options=options(api))

    def details():
        return Status(daemon.conf).details["Nova's API"]

    assert details() == f"Nova reports 1 servers on {HOST}"
    api.privileged = False
    api.add("compute-2", {})
    assert "allow_all_filters" in details()
    api.servers.clear()
    api.privileged = True
    assert "no server on" in details()
    api.down()
    assert "Unable to establish connection" in details()


def test_without_nova_there_is_no_legacy_trigger(cloud):
    daemon = cloud.daemon(options="trigger = legacy\n")
    daemon.process.start()
    daemon.wait_log("Can't start: [notification_handler] trigger is legacy")


def test_a_foreign_event_causes_no_call_to_nova(cloud, api, legacy):
    with cloud.daemon(options=options(api)) as daemon:
        wait_until(lambda: api.requests, 30, "the look after the start")
        known = api.add(HOST, {KEY: "0"})
        before = len(api.requests)
        for _ in range(50):
            legacy(str(uuid.uuid4()), host="compute-2")
        legacy(known)
        wait_until(lambda: daemon.record(known), 30, "it was looked up")
        assert len(api.requests) == before + 1
