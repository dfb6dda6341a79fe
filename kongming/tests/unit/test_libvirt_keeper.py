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

"""The lasting connection: lost, opened again, and its lack logged once an hour."""

import queue

import libvirt
import pytest

from kongming import exception
from kongming.hypervisor.connection import Keeper
from kongming.runtime.heartbeats import Heartbeats
from kongming.tests.libvirt_errors import error

URI = "qemu:///system"


class Connection:
    """One that a test can cut."""

    def __init__(self, refuses=None):
        self.closed = False
        self._refuses = refuses

    def registerCloseCallback(self, callback, _opaque):  # noqa: N802
        if self._refuses is not None:
            raise self._refuses
        self.cut = lambda: callback(self, libvirt.VIR_CONNECT_CLOSE_REASON_EOF, None)

    def unregisterCloseCallback(self):  # noqa: N802
        pass

    def close(self):
        self.closed = True


class Site:
    """A keeper, and a libvirt whose answers a test gives."""

    def __init__(self):
        self.answers = queue.Queue()
        self.connects = queue.Queue()
        self.keeper = Keeper(
            URI,
            self._open,
            {},
            on_subscribed=lambda: None,
            on_connect=lambda: self.connects.put(True),
            heartbeats=Heartbeats(),
        )

    def _open(self):
        answer = self.answers.get(timeout=60)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def give(self, *answers):
        for answer in answers:
            self.answers.put(answer)


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr("kongming.hypervisor.connection._RECONNECT_MAX_S", 0.001)
    site = Site()
    yield site
    site.keeper.stop()
    site.give(Connection())


def unavailable(why):
    return exception.HypervisorUnavailable(f"libvirt at {URI} is unavailable: {why}")


def test_each_reason_is_logged_once_while_libvirt_is_unavailable(site, caplog):
    site.keeper.start()
    site.give(*[unavailable("one")] * 3, *[unavailable("two")] * 3, Connection())
    assert site.connects.get(timeout=60)
    assert site.keeper.connected
    warned = [each.message for each in caplog.records if each.levelname == "WARNING"]
    assert warned == [
        f"libvirt at {URI} is unavailable: {why}; waiting for it" for why in ("one", "two")
    ]


def test_a_reason_is_logged_again_after_an_hour(site, caplog, monkeypatch):
    site.keeper.report_busy(unavailable("one"))
    site.keeper.report_busy(unavailable("one"))
    assert caplog.text.count("waiting for it") == 1
    site.keeper._busy._began -= 3601
    site.keeper.report_busy(unavailable("one"))
    assert caplog.text.count("waiting for it") == 2


def test_a_loss_is_logged_and_its_reason_again(site, caplog):
    site.keeper.start()
    connection = Connection()
    site.give(unavailable("one"), connection)
    site.connects.get(timeout=60)
    site.give(unavailable("one"), Connection())
    connection.cut()
    site.connects.get(timeout=60)
    assert connection.closed
    assert caplog.text.count("was lost; waiting for libvirt") == 1
    assert caplog.text.count("is unavailable: one") == 2


def test_a_connection_that_delivers_no_events_is_closed(site, caplog):
    site.keeper.start()
    deaf = Connection(error(libvirt.VIR_ERR_INTERNAL_ERROR, "gone"))
    site.give(deaf, Connection(error(libvirt.VIR_ERR_NO_SUPPORT)))
    # A driver in this process has no such callback, and none is needed.
    assert site.connects.get(timeout=60)
    assert deaf.closed
    assert "libvirt's error 1, «gone»; waiting for it" in caplog.text
