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
"""The watchdog: a service manager is notified only if all threads make progress."""

import os
import socket

import pytest

from kongming.runtime import heartbeats, systemd
from kongming.runtime.heartbeats import Heartbeats
from kongming.runtime.service import Service


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(heartbeats.time, "monotonic", lambda: now[0])
    return now


def test_a_thread_is_overdue_after_its_limit_without_a_beat(clock):
    beats = Heartbeats()
    first = beats.expect("first", 10.0)
    beats.expect("second", 20.0)
    assert beats.overdue() == []
    clock[0] += 10.0
    assert beats.overdue() == []
    clock[0] += 0.1
    assert beats.overdue() == ["first"]
    first()
    assert beats.overdue() == []
    clock[0] += 10.1
    assert beats.overdue() == ["first", "second"]


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_serves_only_the_process_that_it_was_set_for(
    monkeypatch, environment, interval
):
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert systemd.watchdog_interval() == interval


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path, monkeypatch):
    """A service manager's socket."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@kongming-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(10)
        listening.bind(address.replace("@", "\0", 1))
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield listening


def test_a_state_is_sent_to_the_service_manager(manager):
    systemd.notify(systemd.READY)
    assert manager.recv(100) == b"READY=1"


def test_a_service_manager_that_is_gone_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    systemd.notify(systemd.READY)
    monkeypatch.delenv("NOTIFY_SOCKET")
    systemd.notify(systemd.READY)


class Idle(Service):
    def start(self):
        pass

    def stop(self):
        pass


def test_a_service_reports_health_unless_a_thread_makes_no_progress(manager, clock, caplog):
    service = Idle(None, "part")
    service.heartbeats.expect("watch", 10.0)
    service._notify_watchdog()
    assert manager.recv(100) == b"WATCHDOG=1"
    clock[0] += 11.0
    service._notify_watchdog()
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)
    assert "Threads make no progress: watch" in caplog.text
