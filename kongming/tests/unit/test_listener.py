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

"""The listener's dispatcher: what can be kept is acknowledged, what can't has all wait."""

import threading
from types import SimpleNamespace

import oslo_messaging
import pytest

from kongming import exception
from kongming.bus.hold import Hold
from kongming.notification import listener
from kongming.tests.testbed.process import patience

HANDLED = str(oslo_messaging.NotificationResult.HANDLED)
REQUEUE = str(oslo_messaging.NotificationResult.REQUEUE)
ONE, TWO = SimpleNamespace(message={"n": 1}), SimpleNamespace(message={"n": 2})


class Host:
    """What keeps events, if it can."""

    def __init__(self, monkeypatch):
        monkeypatch.setattr(listener, "_PAUSES_S", (0.0, 0.0))
        self.hold, self.stopping = Hold(), threading.Event()
        self.failures, self.tried, self.kept, self.malformed = 0, [], [], []
        self.dispatcher = listener._Dispatcher(
            self._handle, self.malformed.append, self.hold, self.stopping
        )

    def _handle(self, message):
        self.tried.append(message["n"])
        if self.failures:
            self.failures -= 1
            raise exception.StoreUnavailable("the disk is full")
        self.kept.append(message["n"])


@pytest.fixture
def host(monkeypatch):
    return Host(monkeypatch)


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_message_that_can_be_stored_after_a_retry_is_acknowledged(host, failures):
    host.failures = failures
    assert host.dispatcher.dispatch(ONE) == HANDLED
    assert host.tried == [1] * (failures + 1)
    assert not host.hold.is_on
    assert not host.dispatcher.held_up


def test_a_message_that_can_not_be_stored_is_requeued_after_listening_ends_with_its_successors(
    host,
):
    host.failures = 4
    requeued = []

    def dispatch(incoming):
        requeued.append((host.dispatcher.dispatch(incoming), incoming.message["n"]))

    first = threading.Thread(target=dispatch, args=[ONE])
    first.start()
    while not host.hold.is_on:
        assert first.is_alive()
    second = threading.Thread(target=dispatch, args=[TWO])
    second.start()
    # While a consumer listens, it would be delivered again at once.
    assert not requeued
    host.hold.unsubscribed()
    first.join(20 * patience())
    second.join(20 * patience())
    assert sorted(requeued) == [(REQUEUE, 1), (REQUEUE, 2)]
    assert host.tried == [1] * 3
    assert host.dispatcher.held_up
    # The first one is stored to find out whether messages can be stored again.
    assert not host.hold.end()
    assert host.hold.end()
    assert host.kept == [1]
    assert not host.dispatcher.held_up
    assert host.dispatcher.dispatch(TWO) == HANDLED


def test_a_service_that_ends_does_not_go_on_trying(host):
    host.failures = 9
    host.stopping.set()
    host.hold.unsubscribed()
    assert host.dispatcher.dispatch(ONE) == REQUEUE
    assert host.tried == [1]


def test_a_fault_in_handling_is_counted_and_acknowledged(host):
    host.dispatcher._handle = lambda _message: 1 / 0
    assert host.dispatcher.dispatch(ONE) == HANDLED
    assert host.malformed == ["it led to a fault of Kongming (ZeroDivisionError)"]
