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

"""The loop of a worker thread: wake-ups, delays after errors, heartbeats, and its end."""

import threading
import time

import pytest

from kongming import exception
from kongming.runtime.heartbeats import Heartbeats
from kongming.runtime.loop import Loop
from kongming.tests.testbed.process import wait_until

NEVER_S = 3600.0


class Site:
    """A loop whose steps return or raise what a test sets."""

    def __init__(self, **options):
        self.results = []
        self.steps = 0
        self.reported = []
        given = {"interval_s": NEVER_S, "retry_max_s": 8.0} | options
        self.loop = Loop("loop", "the test", self._step, on_error=self.reported.append, **given)

    def _step(self):
        self.steps += 1
        result = self.results.pop(0) if self.results else None
        if isinstance(result, Exception):
            raise result
        return result

    def wait_steps(self, number):
        wait_until(lambda: self.steps >= number, 30, f"{number} steps")


@pytest.fixture(autouse=True)
def even(monkeypatch):
    monkeypatch.setattr("kongming.runtime.loop.random_between", lambda _low, high: high)


@pytest.fixture
def start():
    sites = []

    def start(**options):
        sites.append(Site(**options))
        sites[-1].loop.start()
        return sites[-1]

    yield start
    for site in sites:
        assert site.loop.stop(30)


def test_a_step_runs_at_the_start_and_at_each_wake_up(start):
    site = start()
    for number in (1, 2, 3):
        site.wait_steps(number)
        site.loop.wake()


def test_a_step_runs_at_the_interval(start):
    start(interval_s=0.001).wait_steps(5)


def test_wake_ups_within_the_gathering_time_make_one_step(start):
    site = start(gather_s=0.2)
    site.wait_steps(1)
    for _ in range(5):
        site.loop.wake()
    site.wait_steps(2)
    time.sleep(0.05)
    assert site.steps == 2


def test_a_wake_up_waits_while_a_step_pauses():
    site = Site()
    site.results = [NEVER_S]
    site.loop.start()
    site.wait_steps(1)
    site.loop.wake()
    time.sleep(0.05)
    assert site.steps == 1
    # The end does not wait.
    assert site.loop.stop(30)


def test_errors_are_reported_and_delay_the_next_step_more_and_more():
    site = Site()
    error = exception.StoreUnavailable("full")
    site.results = [error] * 5 + [None, error]
    assert [site.loop.run_step() for _ in range(7)] == [1, 2, 4, 8, 8, None, 1]
    assert site.reported == [error] * 6


def test_an_error_that_names_a_longer_delay_gets_it():
    site = Site()
    site.results = [exception.NovaUnavailable("busy", retry_after=30.0)]
    assert site.loop.run_step() == 30.0


def test_a_fault_is_logged_once_an_hour_and_the_step_is_retried(caplog):
    site = Site()
    site.results = [ZeroDivisionError("x"), ZeroDivisionError("y"), KeyError("z")]
    assert [site.loop.run_step() for _ in range(4)] == [1, 2, 4, None]
    assert [each.message for each in caplog.records] == [
        "A fault of Kongming in the test: x; it will be retried",
        "A fault of Kongming in the test: 'z'; it will be retried",
    ]
    assert not site.reported


class Beats(Heartbeats):
    """Heartbeats that count."""

    def __init__(self):
        self.count = 0
        self.expected = threading.Event()

    def expect(self, name, within_s):
        assert (name, within_s) == ("loop", 60.0)
        self.expected.set()

        def beat():
            self.count += 1

        return beat


def test_an_error_is_progress_and_a_fault_is_not(start):
    beats = Beats()
    site = start(heartbeats=beats, overdue_s=60.0)
    assert beats.expected.wait(30)
    site.wait_steps(1)
    wait_until(lambda: beats.count == 1, 30, "a beat")
    site.results = [exception.StoreUnavailable("full"), ZeroDivisionError()]
    site.loop.run_step()
    site.loop.run_step()
    assert beats.count == 2


def test_a_loop_that_was_not_started_can_be_stopped():
    loop = Site().loop
    assert loop.stop(1)
    assert loop.is_stopping
