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

"""Guests that nothing is kept of and that have our note: who goes back, and when."""

from dataclasses import replace

import pytest

from kongming import exception
from kongming.allocation import metadata, target
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.request import Request, Source
from kongming.executor.store.store import Store
from kongming.executor.unclaimed import _GRACE_S, Unclaimed
from kongming.host.occupant import Occupant
from kongming.tests import guests

UUID = "5a6e9b1e-0000-4000-8000-000000000001"
OTHER = "5a6e9b1e-0000-4000-8000-000000000002"
BASELINE = {target.vcpu(0): CpuSet([0, 1])}


class Guest(guests.Guest):
    """A running guest: what there is to see of it."""

    def __init__(self, *, baseline=BASELINE, kept_by="", nova=True):
        super().__init__()
        self._now = replace(self._now, nova=nova, baseline=baseline, baseline_store=kept_by)


class Hypervisor(guests.Hypervisor):
    def occupants(self):
        return [
            Occupant(uuid, uuid, touched=bool(guest._now.baseline))
            for uuid, guest in self.guests.items()
        ]


class Host:
    def __init__(self, tmp_path):
        self.store = Store(tmp_path)
        self.hypervisor = Hypervisor()
        self.now = 0.0
        self.looked_up = []
        self.unclaimed = Unclaimed(
            self.store, self.hypervisor, self.looked_up.append, lambda: self.now
        )

    def start(self, uuid=UUID, **options):
        self.hypervisor.guests[uuid] = guest = Guest(**options)
        self.unclaimed.note_event(uuid)
        return guest

    def own(self, **options):
        return self.start(kept_by=self.store.identity, **options)

    def look(self, uuid=UUID):
        return self.unclaimed.check(uuid)

    def released(self, uuid=UUID):
        record = self.store.get(uuid)
        return record is not None and record.requested is not None and not record.requested


@pytest.fixture
def host(tmp_path):
    host = Host(tmp_path)
    yield host
    host.store.close()


def test_a_guest_from_another_host_that_no_event_follows_goes_back_after_a_while(host):
    host.start(kept_by="the store of that host").arrive(*BASELINE)
    assert host.look()
    host.now = _GRACE_S
    assert not host.look()
    assert host.released()


@pytest.mark.parametrize("own", [True, False], ids=["of this store", "of an older release"])
def test_a_guest_that_this_store_released_once_goes_back_after_a_while(host, own, caplog):
    caplog.set_level("INFO")
    if own:
        host.own()
    else:
        host.start()
    assert host.look()
    host.now = _GRACE_S - 0.1
    assert host.look()
    assert not host.released()
    host.now = _GRACE_S
    assert not host.look()
    assert host.released()
    assert "an old definition has restored" in caplog.text
    assert "Kongming" in host.store.history(UUID)[-1].requested_by


def test_a_guest_is_released_as_soon_as_nova_reports_no_request(host):
    host.own()
    assert host.look()
    assert host.unclaimed.note_unrequested(UUID)
    assert not host.look()
    assert host.released()


def test_a_placement_of_another_store_stays_until_nova_reports_no_request(host):
    host.start(kept_by="another")
    assert host.look() is False
    host.now = 100 * _GRACE_S
    assert host.look() is False
    assert not host.released()
    assert host.unclaimed.note_unrequested(UUID)
    assert not host.look()
    assert host.released()


def test_nova_is_queried_once_for_each_start(host):
    host.start(kept_by="another")
    for _ in range(3):
        host.look()
    assert host.looked_up == [UUID]
    host.start(kept_by="another")
    host.look()
    assert host.looked_up == [UUID, UUID]


def test_a_guest_with_a_request_in_nova_is_kept(host):
    host.own()
    host.look()
    host.unclaimed.note_unrequested(UUID)
    host.unclaimed.note_requested(UUID)
    assert host.look()
    requested = metadata.parse({metadata.VCPU_PINNING: "1"})
    host.store.request(UUID, Request(Source.METADATA, requested, "somebody", 1.5))
    host.now = _GRACE_S
    host.look()
    assert host.store.get(UUID).requested == requested


@pytest.mark.parametrize("options", [{"baseline": {}}, {"nova": False}])
def test_a_guest_without_a_note_is_checked_once_for_each_start(host, options):
    guest = host.start(**options)
    assert host.unclaimed.note_unrequested(UUID)
    assert not host.look()
    assert not host.unclaimed.note_unrequested(UUID)
    host.unclaimed.note_event(OTHER)
    assert not host.unclaimed.note_unrequested(UUID)
    host.unclaimed.note_event(UUID)
    assert host.unclaimed.note_unrequested(UUID)
    host.look()
    host.unclaimed.note_event()
    assert host.unclaimed.note_unrequested(UUID)
    assert not host.released()
    assert not host.looked_up
    assert guest.looks == 2


def test_a_guest_that_arrives_by_live_migration_brings_its_request_along(host):
    guest = host.own()
    host.look()
    guest.busy = True
    host.now = _GRACE_S
    assert host.look()
    assert not host.released()
    guest.busy = False
    assert host.look()
    host.now = 2 * _GRACE_S
    assert not host.look()
    assert host.released()


def test_a_guest_that_has_ended_is_no_longer_checked(host):
    assert not host.look()
    host.hypervisor.guests[UUID] = exception.DomainOff("off")
    assert not host.look()
    assert not host.store.has_record(UUID)


def test_a_guest_that_could_not_be_checked_is_checked_again(host):
    host.hypervisor.guests[UUID] = exception.Failed("no")
    assert host.look()


def test_unknown_guests_with_a_note_are_found(host):
    host.start()
    host.start(OTHER)
    host.start("5a6e9b1e-0000-4000-8000-000000000003", baseline={})
    requested = metadata.parse({metadata.VCPU_PINNING: "1"})
    host.store.request(OTHER, Request(Source.METADATA, requested, "somebody", 1.5))
    assert host.unclaimed.find() == [UUID]


def test_answers_about_guests_without_requests_do_not_accumulate(host, monkeypatch):
    monkeypatch.setattr("kongming.executor.unclaimed._MAX", 2)
    for uuid in ("a", "b", "a", "c"):
        host.unclaimed.note_unrequested(uuid)
    assert list(host.unclaimed._unrequested) == ["a", "c"]
