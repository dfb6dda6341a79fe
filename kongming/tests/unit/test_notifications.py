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

"""Versioned notifications of a conductor."""

from types import SimpleNamespace

import pytest

from kongming.allocation.statuses import Status
from kongming.conductor import notifications
from kongming.conductor.notifications import Notifications
from kongming.db.values import Transition


class Notifier:
    """Takes what is sent, or fails."""

    def __init__(self, error=None):
        self.sent, self.error = [], error

    def info(self, _context, event, payload):
        if self.error:
            raise self.error
        self.sent.append((event, payload["kongming_object.data"]))


def transition(status, **fields):
    given = {
        "instance_uuid": "5f0c3b52-6a0e-4c6e-9a5f-0d6a4f0b8c11",
        "project_id": "p",
        "host": "compute-1",
        "map_name": "blue",
        "generation": 3,
        "reason": "",
        "message": "",
        "changed_at": 1_700_000_000.5,
    }
    return Transition(**given | fields, status=status)


def host(name, *, unresponsive):
    return SimpleNamespace(name=name, heartbeat_at=0.0, unresponsive=lambda _now: unresponsive)


@pytest.fixture
def notifier():
    return Notifier()


@pytest.fixture
def sent(notifier):
    """Send, and return the events with their data."""
    emitted = Notifications(notifier)

    def sent(transitions=(), hosts=None):
        notifier.sent.clear()
        emitted.of_allocations(transitions)
        if hosts is not None:
            emitted.of_hosts(lambda: hosts, 0.0)
        emitted.flush(10)
        return notifier.sent

    return sent


def test_each_outcome_of_an_allocation_is_an_event(sent):
    events = [event for event, _ in sent(map(transition, Status))]
    assert events == [
        f"allocation.{status}" for status in Status if status in notifications.EVENTS
    ]
    ((_, data),) = sent([transition(Status.REFUSED, reason="overlap", message="why")])
    assert data == {
        "instance_uuid": "5f0c3b52-6a0e-4c6e-9a5f-0d6a4f0b8c11",
        "project_id": "p",
        "host": "compute-1",
        "map": "blue",
        "generation": 3,
        "status": "refused",
        "reason": "overlap",
        "message": "why",
        "changed_at": "2023-11-14T22:13:20.500Z",
    }


def test_a_host_is_an_event_when_it_stops_or_begins_to_respond(sent):
    def names(*hosts):
        return [(event, data["name"]) for event, data in sent(hosts=hosts)]

    # Those of before the start are no news.
    assert names(host("a", unresponsive=True), host("b", unresponsive=False)) == []
    assert names(host("a", unresponsive=True), host("b", unresponsive=True)) == [
        ("host.unresponsive", "b")
    ]
    assert names(host("a", unresponsive=False), host("b", unresponsive=True)) == [("host.up", "a")]
    # A host that was forgotten has not returned.
    assert names(host("a", unresponsive=False)) == []


def test_what_can_not_be_sent_is_dropped_and_reported_once(caplog):
    emitted = Notifications(Notifier(ConnectionRefusedError()))
    emitted.of_allocations([transition(Status.APPLIED)] * 3)
    emitted.flush(10)
    (message,) = caplog.messages
    assert message.startswith("Notifications are dropped: nothing listens on its port")


def test_without_a_notifier_nothing_is_kept(caplog):
    emitted = Notifications(None)
    emitted.of_allocations([transition(Status.APPLIED)])
    emitted.of_hosts(lambda: pytest.fail("the hosts were read"), 0.0)
    emitted.flush(10)
    assert not caplog.messages
