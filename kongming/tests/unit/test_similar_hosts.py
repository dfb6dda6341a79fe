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

"""Hosts with a similar name: logged once, and never taken for this one."""

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


class EventHost:
    """A host that receives events."""

    def __init__(self, host, running, event_store):
        self.looks = SimilarHosts(host, running, event_store, start=lambda work: work())

    def receive(self, host, times=1, instance_uuid=UUID):
        for _ in range(times):
            self.looks.check(events.read(message(instance_uuid, 1.0, host=host)))


@pytest.fixture
def of(running, event_store):
    return lambda host: EventHost(host, lambda: running, event_store)


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def kept(event_store):
    return event_store._db.query("SELECT host, instance_uuid FROM similar_host")


@pytest.mark.parametrize(
    ("name", "host"),
    [(FULL, "compute-1"), ("compute-1", FULL), ("Compute-1", "compute-1"), ("COMPUTE-1.x", FULL)],
)
def test_a_host_with_a_similar_name_is_logged_once(of, event_store, caplog, name, host):
    similar = of(host)
    similar.receive(name, 19)
    assert not warnings(caplog)
    similar.receive(name, 50)
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
    similar = of("compute-1")
    similar.receive(FULL, 2)
    similar.receive(FULL, events - 2, instance_uuid=OTHER)
    assert warnings(caplog) == ([describe(FULL, "compute-1", OTHER)] if found else [])


def test_a_local_guest_counts_whenever_its_event_arrives(of, running, event_store, caplog):
    running.append(OTHER)
    similar = of("compute-1")
    similar.receive(FULL, 19)
    similar.receive(FULL, 1, instance_uuid=OTHER)
    (line,) = warnings(caplog)
    assert f"Instance {OTHER} of host '{FULL}' runs here: set [DEFAULT] host to '{FULL}'" in line
    assert kept(event_store) == [(FULL, OTHER)]


def test_where_events_of_this_host_arrive_another_domain_is_another_host(of, running, caplog):
    ours, theirs = "compute-1.a.example.org", "compute-1.b.example.org"
    similar = of(ours)
    similar.receive(ours)
    similar.receive(theirs, 30)
    assert not warnings(caplog)
    similar = of(ours)
    similar.receive(theirs, 30)
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("name", ["Compute-1.example.org", "compute-1"])
def test_even_where_events_of_this_host_arrive_another_spelling_is_not_another_host(
    of, caplog, name
):
    similar = of(FULL)
    similar.receive(FULL)
    similar.receive(name, 30)
    assert len(warnings(caplog)) == 1


def test_a_local_guest_identifies_even_a_name_of_another_domain(of, running, caplog):
    running.append(UUID)
    similar = of("compute-1.a")
    similar.receive("compute-1.a")
    similar.receive("compute-1.b", 5)
    assert len(warnings(caplog)) == 1


def test_an_event_of_this_host_after_a_start_ends_the_observation(of, event_store):
    similar = of("compute-1")
    similar.receive(FULL, 20)
    similar.receive("compute-1")
    assert kept(event_store) == []


def test_an_unavailable_libvirt_is_no_obstacle(event_store, caplog):
    def unavailable():
        raise exception.HypervisorUnavailable("no")

    EventHost("compute-1", unavailable, event_store).receive(FULL, 20)
    assert warnings(caplog) == [describe(FULL, "compute-1", "")]


def test_names_and_instances_do_not_pile_up(of, running, monkeypatch):
    monkeypatch.setattr("kongming.notification.similar_hosts._NAMES_MAX", 3)
    monkeypatch.setattr("kongming.notification.similar_hosts._INSTANCES_MAX", 2)
    similar = of("compute-1")
    for number in range(9):
        similar.receive(f"host-{number}")
        assert len(similar.looks._names) <= 3
    for number in range(9):
        similar.receive(FULL, instance_uuid=f"5a6e9b1e-0000-4000-8000-{number:012}")
    assert len(similar.looks._instances[FULL]) == 2


def test_observations_that_end_together_log_a_name_once(event_store, caplog):
    looks = []
    similar_hosts = SimilarHosts("compute-1", lambda: [UUID], event_store, start=looks.append)
    for _ in range(20):
        similar_hosts.check(events.read(message(UUID, 1.0, host=FULL)))
    assert len(looks) == 3
    for look in looks:
        look()
    assert warnings(caplog) == [describe(FULL, "compute-1", UUID)]
