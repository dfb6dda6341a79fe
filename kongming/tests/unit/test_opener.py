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

"""Connections are opened in bounded time, and attempts that hang do not pile up."""

import threading

import libvirt
import pytest

from kongming import exception
from kongming.hypervisor import opener
from kongming.hypervisor.opener import Opener, connect, unattended
from kongming.tests.testbed.process import patience, wait_until

URI = "qemu:///system"


class Libvirt:
    """Opens connections, at once or when a test lets it continue."""

    def __init__(self):
        self.hangs = False
        self.error = None
        self.began, self.closed = 0, []
        self.goes_on = threading.Event()

    def open(self):
        self.began += 1
        number = self.began
        if self.hangs:
            self.goes_on.wait(60)
        if self.error is not None:
            raise self.error
        return Connection(self, number)


class Connection:
    def __init__(self, of, number):
        self._of, self.number = of, number

    def close(self):
        self._of.closed.append(self.number)


class Clock:
    """The monotonic clock, which a test sets on."""

    def __init__(self, monkeypatch):
        self.ahead = 0.0
        real = opener.time.monotonic
        monkeypatch.setattr(opener.time, "monotonic", lambda: real() + self.ahead)


@pytest.fixture
def there():
    there = Libvirt()
    yield there
    there.goes_on.set()


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def hung(there, timeout=0.01):
    """An opener of which one attempt hangs."""
    there.hangs = True
    made = Opener(URI, there.open, timeout)
    refused(made)
    assert there.began == 1
    return made


def refused(made):
    with pytest.raises(exception.HypervisorUnavailable) as raised:
        made.open()
    return str(raised.value)


def test_a_responsive_libvirt_gives_a_connection_each_time(there):
    made = Opener(URI, there.open, 60)
    assert [made.open().number, made.open().number] == [1, 2]
    assert there.closed == []


def test_the_caller_gets_the_error_of_the_attempt(there):
    there.error = exception.HypervisorUnavailable("why")
    assert refused(Opener(URI, there.open, 60)) == "why"
    there.error = ValueError("a fault")
    with pytest.raises(ValueError, match="a fault"):
        Opener(URI, there.open, 60).open()


def test_an_unresponsive_libvirt_is_reported_with_the_time_limit(there):
    there.hangs = True
    message = refused(Opener("qemu+tcp://me:secret@host/system", there.open, 0.01))
    assert "qemu+tcp://***@host/system did not answer within 0.01 s" in message


def test_while_an_attempt_hangs_no_other_begins(there):
    made = hung(there)
    for _ in range(3):
        refused(made)
    assert there.began == 1


def test_the_pauses_between_attempts_that_hang_double(there, clock):
    made = hung(there)
    for number in range(4):
        clock.ahead += opener._PAUSE_S * 2**number - 5
        refused(made)
        assert there.began == number + 1, "not yet"
        clock.ahead += 5
        refused(made)
        assert there.began == number + 2


def test_an_attempt_that_returns_late_is_closed_and_the_next_begins_at_once(there):
    made = hung(there)
    there.hangs = False
    there.goes_on.set()
    wait_until(lambda: there.closed == [1], 30, "the late one is closed")
    assert made.open().number == 2
    assert there.closed == [1]


def test_an_attempt_that_fails_late_lets_the_next_begin_at_once(there):
    made = hung(there)
    there.error = exception.HypervisorUnavailable("refused by now")
    there.goes_on.set()
    wait_until(lambda: not made._hanging, 30, "it came back")
    made._timeout = 60
    assert refused(made) == "refused by now"
    assert there.began == 2


def test_a_caller_that_waits_for_a_hanging_attempt_continues_when_it_returns(there):
    made = hung(there)
    made._timeout = 60
    got = []
    waiting = threading.Thread(target=lambda: got.append(made.open().number))
    waiting.start()
    there.hangs = False
    there.goes_on.set()
    waiting.join(30 * patience())
    assert got == [2]


@pytest.mark.parametrize(
    ("uri", "opened"),
    [
        ("qemu:///system", "qemu:///system"),
        ("qemu+tcp://host/system?x=1", "qemu+tcp://host/system?x=1"),
        ("qemu+ssh://host/system", "qemu+ssh://host/system?no_tty=1"),
        ("qemu+ssh:///system", "qemu+ssh:///system?no_tty=1"),
        ("qemu+libssh://host/system?keyfile=/k", "qemu+libssh://host/system?keyfile=/k&no_tty=1"),
        ("qemu+libssh2://host/system", "qemu+libssh2://host/system?no_tty=1"),
        # It is the operator's to say.
        ("qemu+ssh://host/system?no_tty=0", "qemu+ssh://host/system?no_tty=0"),
        ("qemu+ssh://host/system?a=1&no_tty=", "qemu+ssh://host/system?a=1&no_tty="),
    ],
)
def test_ssh_must_not_prompt(uri, opened):
    assert unattended(uri) == opened


@pytest.mark.parametrize("read_only", [False, True])
def test_libvirt_must_resolve_log_ins_also_for_reading(monkeypatch, read_only):
    calls = []
    monkeypatch.setattr(libvirt, "openAuth", lambda *given: calls.append(given))
    connect(URI, read_only=read_only)
    ((uri, (kinds, callback, _), flags),) = calls
    assert uri == URI
    assert {libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE} <= set(kinds)
    assert callback([], None) == -1
    assert flags == (libvirt.VIR_CONNECT_RO if read_only else 0)


def test_a_driver_in_this_process_needs_no_keepalive():
    connection = connect("test:///default", (5, 5))
    assert connection.isAlive()
    opener.close(connection)
    opener.close(connection)


def test_an_error_of_libvirt_is_translated():
    with pytest.raises(
        exception.HypervisorUnavailable, match=r"no process listens at /none: is lib"
    ):
        connect("qemu:///system?socket=/none")
