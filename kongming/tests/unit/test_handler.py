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

"""The handler of notifications: what it counts, logs, and passes to the trigger."""

import time
from types import SimpleNamespace

import pytest

from kongming import exception
from kongming.executor.store.residence import Place
from kongming.notification import event, handler
from kongming.notification.handler import Handler
from kongming.tests import captures
from kongming.tests.messages import HOST, message

UUID = "5a6e9b1e-0000-4000-8000-000000000001"
OTHER = "compute-2"


class Trigger:
    """A trigger that notes its calls.

    :ivar records: the instances with a record.
    :ivar newest: whether events are the newest of their instance.
    """

    def __init__(self):
        self.records = set()
        self.newest = True
        self.error = None
        self.handled, self.elsewhere = [], []

    def has_record(self, instance_uuid):
        return instance_uuid in self.records

    def note_elsewhere(self, read, place):
        self.elsewhere.append((read.instance_uuid, place))

    def handle(self, read, place):
        if self.error is not None:
            raise self.error
        self.handled.append((read.instance_uuid, read.name, place))
        return self.newest


@pytest.fixture
def trigger():
    return Trigger()


@pytest.fixture
def handled(trigger):
    return Handler(HOST, event.read, trigger)


def update(host=HOST, name="instance.update"):
    return message(UUID, time.time(), name=name, host=host)


def lines(caplog):
    return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]


def test_an_event_of_this_host_goes_to_the_trigger(handled, trigger):
    handled.handle(update())
    assert trigger.handled == [(UUID, "instance.update", Place.HERE)]
    assert handled.counts == {"own": 1}
    assert handled.kinds == {("instance.update", "own"): 1}


def test_an_event_that_is_not_the_newest_counts_as_late(handled, trigger):
    trigger.newest = False
    handled.handle(update())
    assert handled.counts == {"late": 1}
    assert handled.kinds == {("instance.update", "late"): 1}


def test_an_event_of_another_host_is_only_recorded(handled, trigger):
    handled.handle(update(OTHER))
    assert (trigger.handled, trigger.elsewhere) == ([], [(UUID, Place.ELSEWHERE)])
    assert handled.counts == {"foreign": 1}
    assert not handled.kinds


def test_an_event_of_another_host_is_handled_for_an_instance_with_a_record(handled, trigger):
    trigger.records.add(UUID)
    handled.handle(update(OTHER))
    handled.handle(update(name="instance.delete.end"))
    assert [place for _, _, place in trigger.handled] == [Place.ELSEWHERE, Place.NOWHERE]
    assert handled.counts == {"own": 2}


@pytest.mark.parametrize("name", ["instance.update.start", "keypair.create.end"])
def test_an_event_that_shows_no_place_is_foreign(handled, trigger, name):
    handled.handle(update(name=name))
    assert trigger.handled == trigger.elsewhere == []
    assert handled.counts == {"foreign": 1}


def test_an_unreadable_message_is_counted_and_logged_once_for_its_kind(handled, trigger, caplog):
    broken = update()
    del broken["payload"]
    for _ in range(3):
        handled.handle(broken)
    handled.reject("it is no JSON")
    assert handled.counts == {"malformed": 4}
    first, second = lines(caplog)
    assert "Unreadable notification: payload is missing or null, not a dict; ignored (1" in first
    assert "it is no JSON; ignored (4 so far)" in second
    assert trigger.handled == []


def test_a_request_that_can_not_be_stored_is_not_counted(handled, trigger):
    trigger.error = exception.StoreUnavailable("disk full")
    with pytest.raises(exception.StoreUnavailable):
        handled.handle(update())
    assert not handled.counts
    trigger.error = None
    handled.handle(update())
    assert handled.counts == {"own": 1}


def test_the_number_of_kinds_is_limited(handled, monkeypatch):
    monkeypatch.setattr(handler, "_KINDS_MAX", 2)
    for name in ("instance.a", "instance.b", "instance.c", "instance.a", "instance.odd name"):
        handled.handle(update(name=name))
    assert handled.kinds == {
        ("instance.a", "own"): 2,
        ("instance.b", "own"): 1,
        ("other", "own"): 2,
    }
    assert handled.counts == {"own": 5}


def test_any_message_ends_the_idle_time(handled, monkeypatch):
    begin = time.monotonic()
    for number, made in enumerate((update(OTHER), {}, update()), 1):
        monkeypatch.setattr(time, "monotonic", lambda number=number: begin + 100 * number)
        assert handled.idle_s > 99
        handled.handle(made)
        assert handled.idle_s == 0


def test_the_host_of_each_event_is_checked_for_a_similar_name(trigger):
    checked = []
    similar_hosts = SimpleNamespace(check=lambda read: checked.append(read.host))
    handled = Handler(HOST, event.read, trigger, similar_hosts)
    for made in (update("Compute-1"), {}, update(name="keypair.create.end"), update()):
        handled.handle(made)
    assert checked == ["Compute-1", HOST]


def test_each_captured_notification_is_readable(handled, caplog):
    for step in captures.STEPS:
        for made in captures.messages(step):
            handled.handle(made)
    assert handled.counts["malformed"] == 0
    assert handled.counts["own"]
    assert lines(caplog) == []
