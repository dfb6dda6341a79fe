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

"""The legacy trigger: events of this host lead to lookups in Nova, others to nothing."""

from types import SimpleNamespace

import pytest

from kongming import exception
from kongming.executor.store.residence import Place
from kongming.notification import event
from kongming.notification.handler import Handler
from kongming.notification.legacy_trigger import LegacyTrigger

HOST, OTHER = "compute-1", "compute-2"
UUID = "5a6e9b1e-0000-4000-8000-000000000001"


class Poller:
    """A poller that notes the lookups."""

    def __init__(self):
        self.lookups, self.error = {}, None

    def request(self, instance_uuid, *, here=None):
        if self.error is not None:
            raise self.error
        self.lookups[instance_uuid] = here

    def is_pending(self, instance_uuid):
        return instance_uuid in self.lookups


class Site:
    """A handler of legacy notifications, the records of its host, and its poller."""

    def __init__(self):
        self.records, self.poller = set(), Poller()
        metadata = SimpleNamespace(has_record=self.records.__contains__)
        self.trigger = LegacyTrigger(metadata, self.poller)
        self.handler = Handler(HOST, event.read_legacy, self.trigger)

    def handle(self, name="compute.instance.update", host=HOST):
        self.handler.handle(
            {
                "event_type": name,
                "publisher_id": f"compute.{host}",
                "timestamp": "2026-01-01 00:00:00.000000",
                "payload": {"instance_id": UUID, "host": host, "metadata": {}},
            }
        )
        return self.poller.lookups


@pytest.fixture
def site():
    return Site()


def test_an_event_of_this_host_leads_to_a_lookup(site):
    assert site.handle() == {UUID: True}
    assert site.handler.counts == {"own": 1}


def test_an_event_of_another_host_leads_to_no_lookup(site):
    assert site.handle(host=OTHER) == {}
    assert site.handler.counts == {"foreign": 1}


def test_an_instance_with_a_record_is_looked_up_wherever_its_event_shows_it(site):
    site.records.add(UUID)
    assert site.handle(host=OTHER) == {UUID: False}
    assert site.handle("compute.instance.delete.end") == {UUID: False}


def test_an_instance_with_a_pending_lookup_is_looked_up_again(site):
    site.handle()
    assert site.handle(host=OTHER) == {UUID: False}
    assert site.trigger.has_record(UUID)


def test_an_event_that_shows_no_place_leads_to_no_lookup(site):
    assert site.handle("compute.instance.reboot.start") == {}


def test_a_lookup_that_can_not_be_stored_is_an_error(site):
    site.poller.error = exception.StoreUnavailable("disk full")
    with pytest.raises(exception.StoreUnavailable):
        site.handle()
    assert not site.handler.counts


def test_every_event_counts_as_the_newest(site):
    """The lookup shows the state of now, whatever the order of events."""
    for place in Place:
        assert site.trigger.handle(SimpleNamespace(instance_uuid=UUID), place)
