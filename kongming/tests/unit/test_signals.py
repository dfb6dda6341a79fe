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

"""Signals that come at any moment, and threads that end by an error."""

import os
import signal
import threading

import pytest

from kongming import exception
from kongming.cmd import launch
from kongming.runtime.service import Service
from kongming.runtime.signals import Signals
from kongming.runtime.threads import Faults
from kongming.tests.testbed.process import patience


@pytest.fixture
def signals():
    """The signals of this process, which are what they were afterwards."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield Signals()
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _hook():
    before = threading.excepthook
    yield
    threading.excepthook = before


class Calls(Service):
    """A service that keeps what is called, and may have a thread that fails."""

    def __init__(self, fails_with=None):
        super().__init__(None, "part")
        self.calls = []
        self._fails_with = fails_with

    def start(self):
        self.calls.append("start")
        if self._fails_with is not None:
            threading.Thread(target=self._fail, name="the-thread").start()

    def _fail(self):
        raise self._fails_with

    def stop(self):
        self.calls.append("stop")

    def reload(self):
        self.calls.append("reset")


def test_signals_are_kept_in_their_order_until_they_are_read(signals):
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
    assert [signals.wait(5) for _ in range(3)] == [signal.SIGHUP, signal.SIGTERM, signal.SIGHUP]
    assert signals.wait(0) is None


def test_a_stop_before_the_start_is_noticed(signals):
    assert not signals.end_requested()
    os.kill(os.getpid(), signal.SIGHUP)
    assert not signals.end_requested()
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.end_requested()
    # Nothing is lost by asking.
    assert [signals.wait(0), signals.wait(0)] == [signal.SIGHUP, signal.SIGTERM]


def test_a_thread_can_have_the_service_end(signals):
    threading.Thread(target=signals.wake).start()
    assert signals.wait(5) == signal.SIGTERM


def test_a_service_reloads_on_each_sighup_and_ends_on_sigterm(signals):
    for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
    service = Calls()
    assert launch._serve(service, signals, 0) == 0
    assert service.calls == ["start", "reset", "reset", "stop"]


@pytest.mark.parametrize("error", [ValueError("soon"), RuntimeError("x"), KeyError("y")])
def test_a_thread_that_ends_with_an_error_ends_the_service_and_is_logged(signals, caplog, error):
    service = Calls(error)
    assert launch._serve(service, signals, 0) == 1
    assert service.calls == ["start", "stop"]
    (record,) = (each for each in caplog.records if each.levelname == "CRITICAL")
    assert "ended the thread the-thread" in record.getMessage()
    assert record.exc_info[1] is error


def test_a_thread_that_ends_itself_is_no_fault():
    faults = Faults(lambda: pytest.fail("this is no fault"))
    faults.install()
    thread = threading.Thread(target=lambda: (_ for _ in ()).throw(SystemExit))
    thread.start()
    thread.join(5 * patience())
    assert faults.count == 0


def test_a_thread_that_reads_a_removed_option_is_a_fault():
    calls = []
    faults = Faults(lambda: calls.append(True))
    faults.install()
    thread = threading.Thread(target=lambda: {}["check_interval"])
    thread.start()
    thread.join(5 * patience())
    assert (faults.count, calls) == (1, [True])


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        (exception.ConfigInvalid("[x] y: no"), 2, "Can't start: [x] y: no"),
        (exception.StoreUnavailable("the store: no"), 1, "Can't start: the store: no"),
        (ValueError("Tr0ub4dor"), 1, "Can't start: a fault of Kongming, please report this Va"),
    ],
)
def test_a_service_that_can_not_be_built_logs_one_line_without_the_text_of_a_library(
    signals, monkeypatch, tmp_path, caplog, error, status, expected
):
    path = tmp_path / "kongming.conf"
    path.write_text("[DEFAULT]\nhost = compute-1\n")
    monkeypatch.setattr("sys.argv", ["kongming-executor", f"--config-file={path}"])
    monkeypatch.setattr(launch, "set_up_log", lambda _conf: None)
    assert launch.run("kongming-executor", lambda _conf: fail(error), signals) == status
    (record,) = (each for each in caplog.records if each.levelname == "CRITICAL")
    assert record.getMessage().startswith(expected)
    assert record.exc_info is None
    assert "Tr0ub4dor" not in caplog.text


@pytest.mark.parametrize("before", ["the configuration", "the parts"])
def test_a_service_that_is_stopped_before_it_has_started_ends_successfully(
    signals, monkeypatch, tmp_path, before
):
    path = tmp_path / "kongming.conf"
    path.write_text("[DEFAULT]\nhost = compute-1\n")
    monkeypatch.setattr("sys.argv", ["kongming-executor", f"--config-file={path}"])
    monkeypatch.setattr(launch, "set_up_log", lambda _conf: None)
    built = []

    def build(_conf):
        os.kill(os.getpid(), signal.SIGTERM)
        built.append(Calls())
        return built[0]

    if before == "the configuration":
        os.kill(os.getpid(), signal.SIGTERM)
    assert launch.run("kongming-executor", build, signals) == 0
    assert [service.calls for service in built] == ([] if before == "the configuration" else [[]])


def test_an_invalid_configuration_ends_with_2_and_one_line(signals, monkeypatch, tmp_path, capsys):
    path = tmp_path / "kongming.conf"
    path.write_text("[executor]\ncheck_interval = soon\n")
    monkeypatch.setattr("sys.argv", ["kongming-executor", f"--config-file={path}"])
    assert launch.run("kongming-executor", lambda _conf: fail(ValueError), signals) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.startswith("kongming-executor: [executor] check_interval: 'soon' ")
    assert f"({path}, line 2)" in output.err
