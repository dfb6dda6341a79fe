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

"""Where a guest is: what Nova shows, compared with libvirt's test driver, by the service."""

import contextlib
import logging
import time

import libvirt
import pytest

from kongming.executor import departures, unclaimed
from kongming.hypervisor.connection import run_event_loop
from kongming.tests.functional.cloud import EVERYWHERE, URI, Cloud, pins, wait_for
from kongming.tests.messages import message

OTHER = "compute-2"


class Host(Cloud):
    """A host that receives notifications of any moment, from any publisher."""

    def receive(self, domain, sent_at=None, *, host=..., **more):
        """Handle a notification, as if it had come from the bus; by default it is sent now."""
        instance_uuid = domain if isinstance(domain, str) else domain.UUIDString()
        host = self.conf.host if host is ... else host
        sent_at = time.time() if sent_at is None else sent_at
        more.setdefault("publisher", f"nova-compute:{host}")
        self.sent += 1
        self.service._handler.handle(message(instance_uuid, sent_at, host=host, **more))

    def status(self, domain):
        record = self.record(domain)
        return record and str(record.status)

    def wait_status(self, domain, status):
        wait_for(lambda: self.status(domain) == status)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    run_event_loop()
    host = Host(tmp_path_factory.mktemp("host"), libvirt.open(URI))
    yield host.start()
    host.stop()


@pytest.fixture
def host(running, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(departures, "_GRACE_S", 0.0)
    monkeypatch.setattr(unclaimed, "_GRACE_S", 0.0)
    yield running
    for domain in running.domains:
        with contextlib.suppress(libvirt.libvirtError):
            domain.destroy()
        with contextlib.suppress(libvirt.libvirtError):
            domain.undefine()
        running.receive(domain, name="instance.delete.end")
    running.domains.clear()
    running.settled()


@pytest.fixture
def guest(host):
    """A guest that was pinned to CPU 2."""
    guest = host.guest()
    host.receive(guest, name="instance.create.end", vcpu_pinning="2")
    wait_for(lambda: pins(guest) == [{2}] * 4)
    host.wait_status(guest, "applied")
    return guest


def lines(caplog, text):
    return [r.getMessage() for r in caplog.records if text in r.getMessage()]


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("name", "where", "text"),
    [
        ("instance.update", OTHER, f"it is on {OTHER}"),
        ("instance.update", None, "it is on no host"),
        ("instance.live_migration_post.end", ..., "it has left this host"),
        ("instance.delete.end", None, "it is on no host"),
        ("instance.shelve_offload.end", None, "it is on no host"),
    ],
)
def test_a_running_guest_is_not_given_up_for_a_single_event(
    host, guest, caplog, name, where, text
):
    host.receive(guest, name=name, host=where)
    host.wait_status(guest, "elsewhere")
    record = host.record(guest)
    assert record.reason == "claimed_elsewhere"
    assert f"it runs on this host, {host.conf.host}, but Nova reports" in record.message
    assert text in record.message
    (line,) = warnings(caplog)
    assert record.message in line
    # It is kept placed as before.
    guest.pinVcpu(0, (True,) * 8)
    host.receive(guest, name=name, host=where)
    host.service._executor.check_all()
    wait_for(lambda: pins(guest) == [{2}] * 4)
    outcomes = [(each.status, each.reason) for each in host.service._executor.records()]
    assert ("elsewhere", "claimed_elsewhere") in outcomes


def test_a_departure_is_kept_across_a_restart_and_not_logged_again(host, guest, caplog):
    host.receive(guest, host=OTHER)
    host.wait_status(guest, "elsewhere")
    host.stop()
    guest.pinVcpu(0, (True,) * 8)
    host.start()
    wait_for(lambda: pins(guest) == [{2}] * 4)
    host.settled()
    assert host.status(guest) == "elsewhere"
    assert len(lines(caplog, "claimed_elsewhere")) == 1


def test_a_departure_is_settled_by_an_event_of_this_host(host, guest, caplog):
    host.receive(guest, host=OTHER)
    host.wait_status(guest, "elsewhere")
    host.receive(guest, vcpu_pinning="4")
    wait_for(lambda: pins(guest) == [{4}] * 4)
    host.wait_status(guest, "applied")
    assert lines(caplog, "Nova reports again that it is on this host")


def test_a_departed_guest_is_forgotten_when_it_stops(host, guest, caplog):
    host.receive(guest, host=OTHER)
    host.wait_status(guest, "elsewhere")
    guest.destroy()
    wait_for(lambda: host.record(guest) is None)
    wait_for(lambda: lines(caplog, f"forgotten: Nova reports that it is on {OTHER}"))


def test_a_stopped_guest_is_kept_until_its_domain_is_undefined(host):
    xml = host.guest().XMLDesc()
    host.domains[-1].destroy()
    domain = host.connection.defineXML(xml)
    domain.create()
    host.domains.append(domain)
    host.receive(domain, vcpu_pinning="2")
    wait_for(lambda: pins(domain) == [{2}] * 4)
    domain.destroy()
    host.wait_status(domain, "absent")
    # The first half of a resize: it may still be reverted.
    host.receive(domain, name="instance.resize_finish.end", host=OTHER)
    host.settled()
    assert host.status(domain) == "absent"
    domain.create()
    host.wait_status(domain, "elsewhere")
    assert pins(domain) == [{2}] * 4
    domain.destroy()
    host.wait_status(domain, "absent")
    domain.undefine()
    wait_for(lambda: host.record(domain) is None)


@pytest.mark.parametrize("last", ["instance.update", "instance.delete.end"])
def test_an_instance_that_could_not_be_built_leaves_no_record(host, last):
    instance_uuid = "5a6e9b1e-0000-4000-8000-00000000000a"
    store = host.service._executor._store
    host.receive(instance_uuid, vcpu_pinning="2")
    wait_for(lambda: store.get(instance_uuid).status == "absent")
    host.receive(instance_uuid, name=last, host=None, publisher="nova-conductor:controller")
    wait_for(lambda: store.get(instance_uuid) is None)


def test_an_edit_from_an_api_node_whose_clock_is_behind_is_carried_out(host, caplog):
    guest = host.guest()
    begin = time.time()
    host.receive(guest, begin, name="instance.create.end", vcpu_pinning="2")
    host.receive(guest, begin - 2, publisher="nova-api:controller", vcpu_pinning="4")
    wait_for(lambda: pins(guest) == [{4}] * 4)
    (line,) = warnings(caplog)
    assert "The clock of 'nova-api:controller' is behind" in line
    host.receive(guest, begin - 2, publisher="nova-api:controller", vcpu_pinning="2")
    host.settled()
    assert len(warnings(caplog)) == 1


def test_the_order_of_events_outlives_a_restart(host, guest):
    begin = time.time()
    host.receive(guest, begin, vcpu_pinning="4")
    wait_for(lambda: pins(guest) == [{4}] * 4)
    host.stop()
    host.start()
    host.receive(guest, begin - 1, vcpu_pinning="2")
    host.settled()
    assert host.record(guest).requested.vcpu_pinning.every == {4}


def test_departures_of_all_guests_are_attributed_to_the_name_of_this_host(host, guest, caplog):
    other = host.guest()
    host.receive(other, vcpu_pinning="4")
    host.wait_status(other, "applied")
    for each in (guest, other):
        host.receive(each, host=OTHER)
    for each in (guest, other):
        host.wait_status(each, "elsewhere")
    host.settled()
    (line,) = lines(caplog, "Nova reports that none of the 2 instances")
    assert f"[DEFAULT] host, which is {host.conf.host}," in line


def stale(host, guest, **attributes):
    """Start a guest whose definition has what Kongming once wrote into another one."""
    xml = guest.XMLDesc()
    guest.destroy()
    wait_for(lambda: host.status(guest) == "absent")
    host.receive(guest)
    queue = host.service._executor._queue
    wait_for(lambda: not queue and not queue._worked_on)
    host.service._executor._store.forget(guest.UUIDString(), "released while it was off")
    for name, value in attributes.items():
        xml = xml.replace(f'{name}="{host.service._executor._store.identity}"', value)
    assert xml.count("cpuset='2'") == 4
    started = host.connection.createXML(xml, 0)
    host.domains.append(started)
    return started


def test_an_old_definition_that_brings_a_pin_back_is_no_request(host, guest, caplog):
    started = stale(host, guest)
    wait_for(lambda: pins(started) == [EVERYWHERE] * 4)
    wait_for(lambda: host.record(guest) is None)
    assert "baseline" not in started.XMLDesc()
    assert lines(caplog, "an old definition has restored")


def test_departures_while_the_service_was_down_are_attributed_too(host, guest):
    xml = guest.XMLDesc()
    guest.destroy()
    host.wait_status(guest, "absent")
    host.service._executor._store.forget(guest.UUIDString(), "released while it was off")
    host.stop()
    started = host.connection.createXML(xml, 0)
    host.domains.append(started)
    host.start()
    wait_for(lambda: pins(started) == [EVERYWHERE] * 4)


def test_a_placement_of_another_store_waits_for_an_event(host, guest):
    started = stale(host, guest, store='store="of-another-host"')
    host.settled()
    assert pins(started) == [{2}] * 4
    host.receive(guest, name="instance.reboot.end")
    wait_for(lambda: pins(started) == [EVERYWHERE] * 4)


def test_a_guest_that_arrives_with_its_pins_and_its_request_keeps_them(host, guest):
    started = stale(host, guest, store='store="of-another-host"')
    host.receive(guest, name="instance.live_migration_post_dest.end", vcpu_pinning="2")
    host.wait_status(guest, "applied")
    assert pins(started) == [{2}] * 4


def test_events_without_requests_cost_a_guest_without_a_note_no_reading(host, monkeypatch):
    guest = host.guest()
    plain = host.service._executor._unclaimed._plain
    wait_for(lambda: guest.UUIDString() in plain)
    looked_up = []
    hypervisor = host.service._executor._hypervisor
    look = hypervisor.guest
    monkeypatch.setattr(hypervisor, "guest", lambda uuid: looked_up.append(uuid) or look(uuid))
    for _ in range(20):
        host.receive(guest)
        host.settled()
    # libvirt's events of its start may still be on their way.
    assert len(looked_up) <= 2
    assert host.record(guest) is None


def test_events_of_another_spelling_of_this_host_are_logged_once(host, guest, caplog):
    name = f"{host.conf.host}.example.org"
    for number in range(30):
        host.receive(guest if number == 12 else host.guest(), host=name)
    wait_for(lambda: warnings(caplog))
    host.settled()
    (line,) = lines(caplog, "Nova's events name host")
    assert repr(name) in line
    assert "runs here: set [DEFAULT] host" in line
