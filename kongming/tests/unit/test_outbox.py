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
"""Hints: sending one blocks no caller, and those that can't be sent are counted."""

import itertools
import logging
import threading
from types import SimpleNamespace

import pytest

from kongming import exception
from kongming.conductor.pusher import Pusher
from kongming.rpc import outbox as outbox_module
from kongming.rpc.client import ExecutorClient
from kongming.rpc.messages import Desired, Push
from kongming.rpc.outbox import WAITING_MAX, Outbox
from kongming.tests.databases import instance
from kongming.tests.testbed.process import patience

HERE, THERE = "here", "there"


class Line:
    """A way to the receivers that can be blocked, and cut."""

    def __init__(self, newer=max):
        self.sent, self.tries = [], []
        self.error = None
        self._free = threading.Event()
        self._free.set()
        self._busy = threading.Event()
        self.outbox = Outbox("Hints", self.send, newer)

    def send(self, receiver, hints):
        self.tries.append(receiver)
        self._busy.set()
        assert self._free.wait(30 * patience())
        if self.error is not None:
            raise self.error
        self.sent.append((receiver, dict(hints)))

    def block(self):
        """Have a message under way that RabbitMQ does not take."""
        self._free.clear()
        self._busy.clear()
        self.outbox.put("blocked", {"x": 0})
        assert self._busy.wait(30 * patience())

    def free(self):
        self._free.set()
        self.flush()
        return self.sent[1:]

    def flush(self):
        assert self.outbox.flush(30)


@pytest.fixture
def line():
    line = Line()
    yield line
    line.free()


def logged(caplog, level):
    return [each.getMessage() for each in caplog.records if each.levelname == level]


def test_a_hint_is_sent(line):
    line.outbox.put(HERE, {"a": 1})
    line.flush()
    assert line.sent == [(HERE, {"a": 1})]
    assert (line.outbox.waiting, line.outbox.dropped) == (0, 0)


def test_a_caller_with_a_hint_does_not_wait_for_the_previous_one(line):
    line.block()
    line.outbox.put(HERE, {"a": 1})
    line.outbox.put(THERE, {"b": 2})
    assert (line.outbox.waiting, line.sent) == (2, [])
    assert not line.outbox.flush(0)
    assert line.free() == [(HERE, {"a": 1}), (THERE, {"b": 2})]


@pytest.mark.parametrize("order", [*itertools.permutations([1, 2, 3])])
def test_only_the_newest_waiting_hint_of_an_instance_is_sent(line, order):
    line.block()
    for hint in order:
        line.outbox.put(HERE, {"a": hint, f"only-{hint}": hint})
    assert line.outbox.waiting == 4
    assert line.free() == [(HERE, {"a": 3, "only-1": 1, "only-2": 2, "only-3": 3})]


def test_the_same_instance_counts_for_each_receiver(line):
    line.block()
    line.outbox.put(HERE, {"a": 1})
    line.outbox.put(THERE, {"a": 2})
    assert line.free() == [(HERE, {"a": 1}), (THERE, {"a": 2})]


def test_the_number_of_waiting_hints_is_bounded(line, caplog):
    line.block()
    line.outbox.put(HERE, dict.fromkeys(map(str, range(WAITING_MAX - 1)), 0))
    line.outbox.put(THERE, {"last": 1})
    assert (line.outbox.waiting, line.outbox.dropped) == (WAITING_MAX, 0)
    for hint in (1, 2):
        line.outbox.put(THERE, {"last": hint, "more": hint, "0": hint})
        line.outbox.put("elsewhere", {"other": hint})
    assert (line.outbox.waiting, line.outbox.dropped) == (WAITING_MAX, 6)
    (warning,) = logged(caplog, "WARNING")
    assert f"{WAITING_MAX} are waiting already" in warning
    *_, (receiver, hints) = line.free()
    assert (receiver, hints) == (THERE, {"last": 2})


def test_an_undeliverable_hint_is_dropped_with_all_waiting_ones_and_logged_once(line, caplog):
    caplog.set_level("INFO")
    line.block()
    line.error = exception.HostUnresponsive("RabbitMQ can't be used")
    line.outbox.put(HERE, {"a": 1, "b": 1})
    line.outbox.put(THERE, {"c": 1})
    line.free()
    assert line.tries == ["blocked"]
    line.outbox.put(HERE, {"a": 2})
    line.flush()
    assert (line.outbox.waiting, line.outbox.dropped) == (0, 5)
    (warning,) = logged(caplog, "WARNING")
    assert "Hints are dropped: RabbitMQ can't be used" in warning
    line.error = None
    line.outbox.put(HERE, {"a": 3})
    line.outbox.put(HERE, {"a": 4})
    line.flush()
    (back,) = logged(caplog, "INFO")
    assert "those about 5 instances were dropped" in back
    line.error = exception.HostUnresponsive("again")
    line.outbox.put(HERE, {"a": 5})
    line.flush()
    assert len(logged(caplog, "WARNING")) == 2


def test_a_receiver_with_a_full_queue_delays_no_other(line, caplog):
    caplog.set_level(logging.INFO)
    line.error = exception.HostUnresponsive("its queue takes no more")
    line.error.others_too = False
    line.block()
    for receiver in (HERE, THERE):
        line.outbox.put(receiver, {"a": 1})
    real, line.send = line.send, None

    def send(receiver, hints):
        if receiver == HERE:
            line.error = None
        real(receiver, hints)

    line.outbox._send = send
    line.free()
    # Only what it did not take itself is dropped, and that is logged once.
    assert line.sent == [(HERE, {"a": 1}), (THERE, {"a": 1})]
    line.error = exception.HostUnresponsive("its queue takes no more")
    line.error.others_too = False
    line.outbox._send = real
    line.outbox.put("blocked", {"y": 0})
    line.flush()
    assert line.outbox.dropped == 2
    (line,) = logged(caplog, "WARNING")
    assert line.startswith("Hints are dropped: its queue takes no more; the receiver gets all")
    assert logged(caplog, "INFO") == []


def test_a_fault_in_sending_does_not_end_the_thread(line, caplog):
    line.error = ZeroDivisionError("a fault of ours")
    line.outbox.put(HERE, {"a": 1})
    line.flush()
    line.error = None
    line.outbox.put(HERE, {"a": 2})
    line.flush()
    assert line.sent == [(HERE, {"a": 2})]
    assert line.outbox.dropped == 1
    assert "A fault of Kongming in sending hints" in caplog.text


def test_a_thread_that_a_fork_has_ended_is_started_again(line, monkeypatch):
    line.outbox.put(HERE, {"a": 1})
    line.flush()
    # In a child the threads of its parent are not alive.
    monkeypatch.setattr(line.outbox, "_thread", threading.Thread())
    line.outbox.put(HERE, {"a": 2})
    line.flush()
    assert [hints for _, hints in line.sent] == [{"a": 1}, {"a": 2}]


def test_the_later_generation_of_two_pushes_is_sent(monkeypatch):
    sent = []
    made = []

    class Acknowledgement(Outbox):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

        def _run(self):
            """Send nothing by itself."""

    monkeypatch.setattr("kongming.rpc.client.Outbox", Acknowledgement)
    monkeypatch.setattr("kongming.rpc.client.Caller", lambda *_: Cast(sent))
    client = ExecutorClient(None, 1.0)
    for generation in (2, 3, 1):
        client.push(HERE, {"a": Desired(generation, None)})
    (outbox,) = made
    receiver, hints = outbox._waiting.popitem()
    outbox._send(receiver, hints)
    assert sent == [("desired", Push({"a": Desired(3, None)}), HERE)]


def test_a_conductor_does_not_wait_for_its_hosts(monkeypatch):
    """While RabbitMQ takes no messages, a change is reported to a conductor at once."""
    blocked, busy = threading.Event(), threading.Event()

    class Blocked:
        def __init__(self, *_):
            """Accept any arguments."""

        def cast(self, *_):
            busy.set()
            assert blocked.wait(30 * patience())

    monkeypatch.setattr("kongming.rpc.client.Caller", Blocked)
    client = ExecutorClient(None, 1.0)
    known = Known({instance(number): f"host-{number}" for number in range(1, 5)})
    pusher = Pusher(known, known, client)
    assert pusher.push([instance(1)]) == []
    assert busy.wait(30 * patience())
    assert pusher.push([instance(number) for number in range(2, 6)]) == []
    assert client.outbox.waiting == 3
    blocked.set()
    assert client.outbox.flush(30)
    assert client.outbox.dropped == 0


class Known:
    """What a conductor's database knows: where instances are; all hosts are up."""

    def __init__(self, hosts):
        self._hosts = hosts

    def desired(self, uuids):
        return {
            uuid: SimpleNamespace(
                instance_uuid=uuid,
                holder=self._hosts[uuid],
                generation=1,
                allocation=None,
                requested_by="",
            )
            for uuid in uuids
            if uuid in self._hosts
        }

    def named(self, names):
        return [SimpleNamespace(name=name, unresponsive=lambda _now: False) for name in names]


class Cast:
    def __init__(self, sent):
        self._sent = sent

    def cast(self, *arguments):
        self._sent.append(arguments)


def test_the_room_is_bounded():
    assert outbox_module.WAITING_MAX == 10_000
