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

"""Hosts that look like this one: told once, and never taken for it."""

import pytest

from kongming import exception
from kongming.notification import event as events
from kongming.notification.event_store import EventStore
from kongming.notification.similar_hosts import SimilarHosts, describe, is_similar
from kongming.tests.messages import message

UUID = "5a6e9b1e-0000-4000-8000-000000000001"
OTHER = "5a6e9b1e-0000-4000-8000-000000000002"
FULL = "compute-1.example.org"


@pytest.fixture
def event_store(tmp_path):
    event_store = EventStore(tmp_path)
    yield event_store
    event_store.close()


@pytest.fixture
def running():
    return []


class Told:
    """A host that hears events."""

    def __init__(self, host, running, event_store):
        self.looks = SimilarHosts(host, running, event_store, start=lambda work: work())

    def receive(self, host, times=1, instance_uuid=UUID):
        for _ in range(times):
            self.looks.check(events.read(message(instance_uuid, 1.0, host=host)))


@pytest.fixture
def of(running, event_store):
    return lambda host: Told(host, lambda: running, event_store)


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def kept(event_store):
    return event_store._db.query("SELECT host, instance_uuid FROM similar_host")


@pytest.mark.parametrize(
    ("name", "host"),
    [(FULL, "compute-1"), ("compute-1", FULL), ("Compute-1", "compute-1"), ("COMPUTE-1.x", FULL)],
)
def test_a_host_with_a_similar_name_is_logged_once(of, event_store, caplog, name, host):
    told = of(host)
    told.receive(name, 19)
    assert not warnings(caplog)
    told.receive(name, 50)
    assert warnings(caplog) == [describe(name, host, "")]
    assert kept(event_store) == [(name, "")]


@pytest.mark.parametrize("name", ["compute-10", "compute-2", "compute-1b.example.org", "", None])
def test_other_hosts_are_other_hosts(of, caplog, name):
    of("compute-1").receive(name, 30)
    assert not warnings(caplog)
    assert name is None or not is_similar(name, "compute-1")


@pytest.mark.parametrize(("events", "found"), [(4, False), (5, True), (9, True)])
def test_a_local_guest_of_a_similar_host_is_logged_sooner(of, running, caplog, events, found):
    running.append(OTHER)
    told = of("compute-1")
    told.receive(FULL, 2)
    told.receive(FULL, events - 2, instance_uuid=OTHER)
    assert warnings(caplog) == ([describe(FULL, "compute-1", OTHER)] if found else [])


def test_a_local_guest_counts_whenever_its_event_arrives(of, running, event_store, caplog):
    running.append(OTHER)
    told = of("compute-1")
    told.receive(FULL, 19)
    told.receive(FULL, 1, instance_uuid=OTHER)
    (line,) = warnings(caplog)
    assert f"Instance {OTHER} of host '{FULL}' runs here: set [DEFAULT] host to '{FULL}'" in line
    assert kept(event_store) == [(FULL, OTHER)]


def test_where_events_of_this_host_arrive_another_domain_is_another_host(of, running, caplog):
    ours, theirs = "compute-1.a.example.org", "compute-1.b.example.org"
    told = of(ours)
    told.receive(ours)
    told.receive(theirs, 30)
    assert not warnings(caplog)
    told = of(ours)
    told.receive(theirs, 30)
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("name", ["Compute-1.example.org", "compute-1"])
def test_even_where_events_of_this_host_arrive_another_spelling_is_not_another_host(
    of, caplog, name
):
    told = of(FULL)
    told.receive(FULL)
    told.receive(name, 30)
    assert len(warnings(caplog)) == 1


def test_a_local_guest_identifies_even_a_name_of_another_domain(of, running, caplog):
    running.append(UUID)
    told = of("compute-1.a")
    told.receive("compute-1.a")
    told.receive("compute-1.b", 5)
    assert len(warnings(caplog)) == 1


def test_an_event_of_this_host_after_a_start_ends_the_observation(of, event_store):
    told = of("compute-1")
    told.receive(FULL, 20)
    told.receive("compute-1")
    assert kept(event_store) == []


def test_a_libvirt_that_is_away_is_no_obstacle(event_store, caplog):
    def away():
        raise exception.HypervisorUnavailable("no")

    Told("compute-1", away, event_store).receive(FULL, 20)
    assert warnings(caplog) == [describe(FULL, "compute-1", "")]


def test_names_and_instances_do_not_pile_up(of, running, monkeypatch):
    monkeypatch.setattr("kongming.notification.similar_hosts._NAMES_MAX", 3)
    monkeypatch.setattr("kongming.notification.similar_hosts._INSTANCES_MAX", 2)
    told = of("compute-1")
    for number in range(9):
        told.receive(f"host-{number}")
        assert len(told.looks._names) <= 3
    for number in range(9):
        told.receive(FULL, instance_uuid=f"5a6e9b1e-0000-4000-8000-{number:012}")
    assert len(told.looks._instances[FULL]) == 2


def test_observations_that_end_together_log_a_name_once(event_store, caplog):
    looks = []
    similar_hosts = SimilarHosts("compute-1", lambda: [UUID], event_store, start=looks.append)
    for _ in range(20):
        similar_hosts.check(events.read(message(UUID, 1.0, host=FULL)))
    assert len(looks) == 3
    for look in looks:
        look()
    assert warnings(caplog) == [describe(FULL, "compute-1", UUID)]
