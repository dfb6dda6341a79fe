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

"""Where a guest is: Nova's words on a real bus, against real guests."""

import json
import sys
import time
import uuid

import kombu
import libvirt
import pytest

from kongming.tests.integration.conftest import KEY, applied, everywhere, status
from kongming.tests.integration.status import Status
from kongming.tests.messages import message
from kongming.tests.testbed.broker import kombu_url
from kongming.tests.testbed.guest import destroy
from kongming.tests.testbed.libvirtd import Libvirtd
from kongming.tests.testbed.migration import migrate
from kongming.tests.testbed.nova_api import Fault, NovaApi
from kongming.tests.testbed.process import run, wait_until
from kongming.tests.thorough import stories

HOST, OTHER = "compute-1", "compute-2"
OFTEN = "[executor]\ncheck_interval = 1\n"


class Publisher:
    """Publishes notifications of any moment, from any publisher."""

    def __init__(self, cloud):
        self._exchange = cloud.exchange
        self._connection = kombu.Connection(kombu_url(cloud.broker.transport_url()))
        self._producer = self._connection.Producer()

    def __call__(self, guest, sent_at=None, **more):
        """Publish one; by default it is sent now."""
        known = guest if isinstance(guest, str) else guest.uuid
        made = message(known, time.time() if sent_at is None else sent_at, **more)
        made["_unique_id"] = uuid.uuid4().hex
        self._producer.publish(
            {"oslo.version": "2.0", "oslo.message": json.dumps(made)},
            exchange=self._exchange,
            routing_key="versioned_notifications.info",
            serializer="json",
        )

    def close(self):
        self._connection.close()


@pytest.fixture
def publish(cloud):
    publisher = Publisher(cloud)
    yield publisher
    publisher.close()


@pytest.fixture
def api():
    with NovaApi() as api:
        yield api


def manage(daemon, *command):
    program = [sys.executable, "-m", "kongming.cmd.manage", "--config-file", str(daemon.conf)]
    found = run([*program, *command, "-f", "json"], check=True)
    return json.loads(found.stdout)


def forgotten(daemon, guest):
    known = guest if isinstance(guest, str) else guest.uuid
    wait_until(lambda: daemon.record(known) is None, 30, "it is forgotten")


@stories("host", [OTHER, None])
def test_a_running_guest_is_kept_whatever_event_arrives(cloud, publish, cpus, host):
    first, last = cpus[0], cpus[-1]
    guest = cloud.guest()
    with cloud.daemon(options=OFTEN) as daemon:
        publish(guest, name="instance.create.end", vcpu_pinning=str(last))
        applied(daemon, guest)
        publish(guest, host=host, vcpu_pinning=str(first))
        assert status(daemon, guest, "elsewhere").reason == "claimed_elsewhere"
        where = f"it is on {OTHER}" if host else "it is on no host"
        line = (
            f"Instance {guest.uuid}: elsewhere (claimed_elsewhere): it runs on this host, {HOST}"
        )
        daemon.wait_log(line)
        assert where in daemon.log()
        # Nobody else may place it.
        guest.pin(first)
        guest.wait_on(last)
        (row,) = manage(daemon, "allocation", "list")
        assert row["status"] == "elsewhere"
        reported = manage(daemon, "allocation", "show", guest.uuid)["nova_reports"]
        assert (reported["place"] == "nowhere", reported["host"]) == (host is None, host or "")
        # Also after a restart, after which no event repeats it.
        daemon.stop()
        guest.pin(first)
        daemon.start()
        guest.wait_on(last)
        cloud.settle(daemon)
        assert daemon.log().count("(claimed_elsewhere)") == 1
        publish(guest, vcpu_pinning=str(first))
        guest.wait_on(first)
        applied(daemon, guest)
        publish(guest, host=host)
        guest.domain.destroy()
        forgotten(daemon, guest)


def test_events_during_an_outage_of_libvirt_are_decided_when_it_is_back(cloud, publish, cpus):
    guest, gone = cloud.guest(), cloud.guest()
    with cloud.daemon() as daemon:
        for each in (guest, gone):
            publish(each, vcpu_pinning=str(cpus[-1]))
            applied(daemon, each)
        gone.domain.destroy()
        status(daemon, gone, "absent")
        cloud.libvirtd.stop()
        daemon.wait_log("was lost; waiting for libvirt")
        for each in (guest, gone):
            publish(each, host=OTHER)
        cloud.nova.publish(late := str(uuid.uuid4()), HOST, {KEY: "0"})
        wait_until(lambda: daemon.record(late), 30, "events are taken meanwhile")
        assert daemon.record(gone.uuid)
        daemon.kill()
        daemon.start_soon()
        cloud.libvirtd.start()
        daemon.wait_ready()
        forgotten(daemon, gone)
        status(daemon, guest, "elsewhere")
        guest.wait_on(cpus[-1])


@pytest.mark.needs_mounts
def test_a_live_migrated_guest_is_forgotten_without_an_event(cloud, publish, cpus, tmp_path):
    guest = cloud.guest(firmware=tmp_path / "firmware.rom")
    with Libvirtd(tmp_path / "libvirt-2") as second, cloud.daemon() as daemon:
        publish(guest, vcpu_pinning=str(cpus[-1]))
        applied(daemon, guest)
        guest.domain = migrate(guest.domain, libvirt.open(second.uri))
        try:
            daemon.wait_log(f"Instance {guest.uuid}: has left this host, forgotten: libvirt has")
            forgotten(daemon, guest)
            # Nova's last word from here comes later, and finds nothing to be placed.
            publish(guest, vcpu_pinning=str(cpus[-1]))
            status(daemon, guest, "absent")
            publish(guest, name="instance.live_migration_post_dest.end", host=OTHER)
            forgotten(daemon, guest)
            assert " WARNING " not in daemon.log()
        finally:
            destroy(guest.domain)


@stories("last", ["instance.update", "instance.delete.end"])
def test_an_instance_that_could_not_be_built_leaves_no_record(cloud, publish, last):
    known = str(uuid.uuid4())
    with cloud.daemon() as daemon:
        publish(known, vcpu_pinning="0")
        wait_until(lambda: daemon.record(known), 30, "it is kept")
        publish(known, name=last, host=None, publisher="nova-conductor:controller")
        forgotten(daemon, known)


@pytest.mark.needs_mounts
def test_an_edit_from_an_api_node_whose_clock_is_behind_is_carried_out(cloud, publish, cpus):
    guest = cloud.guest()
    with cloud.daemon() as daemon:
        begin = time.time()
        publish(guest, begin, name="instance.create.end", vcpu_pinning=str(cpus[0]))
        publish(guest, begin - 2, publisher="nova-api:a", vcpu_pinning=str(cpus[-1]))
        guest.wait_on(cpus[-1])
        applied(daemon, guest)
        daemon.wait_log("The clock of 'nova-api:a' is behind that of 'nova-compute:compute-1'")
        # An older one of the same sender is late, and so is the same one again.
        publish(guest, begin - 3, publisher="nova-api:a", vcpu_pinning=str(cpus[0]))
        again = {"message_id": "m1", "publisher": "nova-api:b"}
        publish(guest, begin - 30, **again, vcpu_pinning=str(cpus[-1]))
        publish(guest, vcpu_pinning=str(cpus[-1]), cpu_shares="300")
        daemon.stop()
        daemon.start()
        publish(guest, begin - 30, **again, vcpu_pinning=str(cpus[0]))
        cloud.settle(daemon)
        assert guest.affinity() == {vcpu: {cpus[-1]} for vcpu in guest.affinity()}


def test_events_of_a_publisher_whose_clock_was_set_back_are_received(cloud, publish, cpus):
    first, last = cpus[0], cpus[-1]
    guest, other = cloud.guest(), cloud.guest()
    with cloud.daemon() as daemon:
        for each in (guest, other):
            publish(each, publisher="nova-api:a", vcpu_pinning=str(first))
            applied(daemon, each)
        # Eight hours: its hardware clock has local time.
        hours = 8 * 3600
        publish(guest, time.time() - hours, publisher="nova-api:a", vcpu_pinning=str(last))
        daemon.wait_log("The clock of 'nova-api:a' may have been set back")
        begin = time.monotonic()
        wait_until(lambda: time.monotonic() - begin > 1.2, 10, "its next event is sent")
        publish(other, time.time() - hours, publisher="nova-api:a", vcpu_pinning=str(last))
        for each in (guest, other):
            each.wait_on(last)
        daemon.wait_log("was set back and now is behind this host's by about 8.0 h")


def test_old_events_do_not_override_nova(cloud, publish, api, cpus):
    first, last = cpus[0], cpus[-1]
    guest = cloud.guest()
    api.add(HOST, {KEY: str(first)}, instance_uuid=guest.uuid)
    daemon = cloud.daemon(options=api.options())
    daemon.start()
    guest.wait_on(first)
    applied(daemon, guest)
    # Behind an answer; then, after maintenance, together with the question.
    api.servers[guest.uuid].metadata[KEY] = str(last)
    manage(daemon, "resync", guest.uuid)
    guest.wait_on(last)
    before = len(api.requests)
    publish(guest, time.time() - 3600, vcpu_pinning=str(first))
    wait_until(lambda: len(api.requests) > before, 30, "Nova is queried again")
    cloud.settle(daemon)
    assert guest.affinity() == {vcpu: {last} for vcpu in guest.affinity()}
    daemon.stop()
    publish(guest, time.time() - 3600, publisher="nova-compute:x", vcpu_pinning=str(first))
    api.fault = Fault(0, delay=1.0, times=2)
    daemon.start()
    cloud.settle(daemon)
    wait_until(lambda: api.fault.times == 0, 30, "Nova was queried")
    guest.wait_on(last)
    cloud.settle(daemon)
    record = applied(daemon, guest)
    assert record.requested.vcpu_pinning.every == {last}


def test_an_event_that_nova_contradicts_is_healed_by_its_answer(cloud, publish, api, cpus):
    guest = cloud.guest()
    api.add(HOST, {KEY: str(cpus[-1])}, instance_uuid=guest.uuid)
    with cloud.daemon(options=api.options()) as daemon:
        guest.wait_on(cpus[-1])
        applied(daemon, guest)
        # As at the end of a resize between cells: the record of the other one.
        publish(guest, host=OTHER)
        cloud.settle(daemon)
        wait_until(
            lambda: manage(daemon, "allocation", "show", guest.uuid)["nova_reports"] is None,
            30,
            "Nova has put it right",
        )
        applied(daemon, guest)
        assert "claimed_elsewhere" not in daemon.log()


def test_an_unnamed_region_is_no_reason_to_give_up_all_guests(cloud, api, cpus):
    guests = [cloud.guest(vcpus=1) for _ in range(2)]
    daemon = cloud.daemon(options=api.options().replace("region_name = RegionOne\n", ""))
    for guest in guests:
        api.add(HOST, {KEY: str(cpus[-1])}, instance_uuid=guest.uuid)
    daemon.start()
    for guest in guests:
        applied(daemon, guest)
    daemon.stop()
    api.servers.clear()
    api.regions = {"RegionOne": "", "RegionTwo": "/two"}
    daemon.start()
    daemon.wait_log("Nova's API can't be used (nova_ambiguous)")
    assert "RegionTwo (" in daemon.log()
    for guest in guests:
        assert daemon.record(guest.uuid).status == "applied"
    assert "RegionTwo (" in Status(daemon.conf).details["Nova's API"]
    daemon.stop()
    # The wrong one is named: all of them are elsewhere by its word.
    api.regions = {"RegionOne": ""}
    daemon.start()
    for guest in guests:
        status(daemon, guest, "elsewhere")
    daemon.wait_log("Nova reports that none of the 2 instances")
    for guest in guests:
        guest.wait_on(cpus[-1])


def persistent(cloud, guest):
    """Define a guest from its live XML, as Nova does when it swaps a volume."""
    connection = libvirt.open(cloud.libvirtd.uri)
    xml = guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE)
    guest.domain = connection.defineXML(xml)
    assert "baseline" in guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)


@pytest.mark.needs_mounts
def test_a_release_cleans_the_definition_too(cloud, publish, cpus, tmp_path):
    guest = cloud.guest(iothreads=1, firmware=tmp_path / "firmware.rom")
    last = str(cpus[-1])
    with cloud.daemon() as daemon:
        publish(
            guest,
            vcpu_pinning=last,
            emulator_pinning=last,
            iothread_pinning=last,
            cpu_shares="300",
            vcpu_quota="50%",
            numa_nodes="0",
        )
        applied(daemon, guest)
        persistent(cloud, guest)
        publish(guest)
        forgotten(daemon, guest)
        daemon.wait_log("its persistent definition was cleaned, too")
        assert "baseline" not in guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        guest.domain.destroy()
        guest.domain.create()
        try:
            assert guest.affinity() == everywhere(guest)
            now = guest.domain.schedulerParametersFlags(libvirt.VIR_DOMAIN_AFFECT_LIVE)
            assert now["cpu_shares"] != 300
            cloud.settle(daemon)
            assert daemon.record(guest.uuid) is None
        finally:
            guest.domain.undefine()


@pytest.mark.needs_mounts
@stories("how", ["an event", "no event", "a restart of the service"])
def test_a_definition_that_brings_an_old_pin_back_is_no_request(
    cloud, publish, cpus, tmp_path, how
):
    guest = cloud.guest(firmware=tmp_path / "firmware.rom")
    with cloud.daemon() as daemon:
        publish(guest, vcpu_pinning=str(cpus[-1]))
        applied(daemon, guest)
        persistent(cloud, guest)
        old = guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        publish(guest)
        forgotten(daemon, guest)
        guest.domain.destroy()
        # As it was before the release: Nova may have read it before.
        guest.domain = libvirt.open(cloud.libvirtd.uri).defineXML(old)
        if how == "a restart of the service":
            daemon.stop()
        guest.domain.create()
        try:
            if how == "a restart of the service":
                assert guest.affinity() == {vcpu: {cpus[-1]} for vcpu in guest.affinity()}
                daemon.start()
            if how == "an event":
                publish(guest, name="instance.reboot.end")
            wait_until(lambda: guest.affinity() == everywhere(guest), 60, "its baseline")
            daemon.wait_log("an old definition has restored")
            forgotten(daemon, guest)
            inactive = guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
            assert "baseline" not in inactive
        finally:
            guest.domain.undefine()


def test_a_host_with_another_name_in_nova_is_logged(cloud, publish, cpus):
    guest = cloud.guest()
    with cloud.daemon() as daemon:
        for number in range(20):
            known = guest.uuid if number == 7 else str(uuid.uuid4())
            publish(known, host=f"{HOST}.example.org", vcpu_pinning=str(cpus[-1]))
        daemon.wait_log(
            f"Instance {guest.uuid} of host '{HOST}.example.org' runs here: set [DEFAULT] host"
        )
        (line,) = [one for one in daemon.log().splitlines() if "Nova's events name host" in one]
        assert f"'{HOST}.example.org'" in line
        assert f"[DEFAULT] host is '{HOST}'" in line
        assert " WARNING " in line
        details = Status(daemon.conf).details["Nova's notifications"]
        assert f"Instance {guest.uuid} of host '{HOST}.example.org' runs here" in details
        assert daemon.record(guest.uuid) is None
        assert guest.affinity() == everywhere(guest)


def test_nova_that_names_a_host_by_another_case_blames_the_name(cloud, api, monkeypatch):
    known = api.add("Compute-1", {})
    row = api.show(known)[1]["server"]
    monkeypatch.setattr(api, "list", lambda _query: (200, {"servers": [row]}, {}))
    with cloud.daemon(options=api.options()) as daemon:
        daemon.wait_log("Nova has the servers of this host on Compute-1, but [DEFAULT] host is")
        assert "allow_all_filters" not in daemon.log()
