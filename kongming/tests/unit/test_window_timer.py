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
"""When the window timer requests passes, and what that costs."""

from datetime import UTC, datetime, timedelta
from importlib import resources
import zoneinfo
from zoneinfo import ZoneInfo

import pytest

from kongming.allocation import cron, timezones, windows
from kongming.allocation.allocation import Allocation, Windowed
from kongming.allocation.windows import Window
from kongming.executor import window_timer
from kongming.executor.window_timer import WindowTimer
from kongming.tests import steps

HOUR = timedelta(hours=1)
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
DUSK = datetime(2026, 11, 24, 22, tzinfo=UTC)
NIGHT = Window("night", "0 22 * * *", 8 * 3600)
EVENING = Window("evening", "0 20 * * *", 3600)
ALWAYS = Window("always", "* * * * *", 60)
UNKNOWN = Window("unknown", "0 0 * * *", 3600, "Mars/Olympus", checked=False)


class Clock:
    """A clock on the wall that the test sets."""

    def __init__(self, monkeypatch):
        self.moment = NOON
        monkeypatch.setattr(window_timer, "now", lambda: self.moment)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def timer(clock):
    return WindowTimer()


def rules(name):
    """Return the file of a zone, from Python's package."""
    return resources.files("tzdata").joinpath("zoneinfo", name).read_bytes()


def requested(*windows):
    return Allocation(windows=tuple(Windowed(window, Allocation()) for window in windows))


def test_now_is_this_moment():
    before = datetime.now(UTC)
    assert before <= window_timer.now() <= datetime.now(UTC)


def test_an_instance_is_due_when_its_window_begins_and_only_then(timer, clock):
    assert timer.note("a", [requested(NIGHT), None]) == NOON
    for moment in (NOON, DUSK - HOUR, DUSK - HOUR / 3600):
        clock.moment = moment
        assert timer.due() == []
    clock.moment = DUSK
    assert timer.due() == ["a"]
    # Until its pass it is not due again.
    assert timer.due() == []
    clock.moment += HOUR
    assert timer.due() == []
    assert timer.note("a", [requested(NIGHT), requested(NIGHT)]) == clock.moment
    clock.moment = DUSK + 8 * HOUR
    assert timer.due() == ["a"]


def test_the_earliest_transition_of_all_windows_counts(timer, clock):
    timer.note("a", [requested(NIGHT, ALWAYS), requested(EVENING)])
    timer.note("b", [requested(NIGHT)])
    timer.note("c", [requested(ALWAYS)])
    clock.moment = DUSK - 2 * HOUR
    assert timer.due() == ["a"]
    clock.moment = DUSK + HOUR
    assert timer.due() == ["b"]


def test_an_instance_without_windows_is_never_due(timer, clock):
    timer.note("a", [requested(NIGHT)])
    assert timer.note("a", [None, Allocation(cpu_shares=5)]) == NOON
    assert timer.note("b", []) == NOON
    clock.moment = DUSK
    assert timer.due() == []
    clock.moment = NOON
    assert timer.due() == []


def test_other_windows_are_judged_at_once(timer, clock):
    timer.note("a", [requested(NIGHT)])
    clock.moment += HOUR
    timer.note("a", [requested(EVENING)])
    clock.moment = DUSK - 2 * HOUR
    assert timer.due() == ["a"]


def test_all_instances_are_due_when_the_clock_was_set_back(timer, clock):
    for name in ("a", "b"):
        timer.note(name, [requested(NIGHT)])
    timer.note("c", [None])
    clock.moment = NOON + HOUR / 3600
    assert timer.due() == []
    clock.moment = NOON
    assert timer.due() == ["a", "b"]
    assert timer.due() == []
    # What was noted meanwhile is a moment, too.
    clock.moment = DUSK
    timer.note("a", [requested(NIGHT)])
    clock.moment = DUSK - HOUR
    assert timer.due() == ["a", "b"]
    timer.note("a", [requested(NIGHT)])
    clock.moment = DUSK
    assert timer.due() == ["a"]


def test_all_instances_are_due_when_the_tz_database_was_updated(
    timer, clock, tmp_path, monkeypatch
):
    monkeypatch.setattr(timezones, "_zones", {})
    monkeypatch.setattr(zoneinfo, "TZPATH", (str(tmp_path), *zoneinfo.TZPATH))
    (tmp_path / "Test").write_bytes(rules("UTC"))
    timer.note("a", [requested(Window("night", "0 22 * * *", 3600, "Test"))])
    timer.note("b", [requested(NIGHT)])
    assert timer.due() == []
    # Now it is nine hours ahead.
    (tmp_path / "Test").write_bytes(rules("Asia/Tokyo"))
    assert timer.due() == ["a", "b"]
    for name, window in (("a", Window("night", "0 22 * * *", 3600, "Test")), ("b", NIGHT)):
        timer.note(name, [requested(window)])
    assert timer.due() == []
    clock.moment = NOON + HOUR
    assert timer.due() == ["a"]


def test_an_unreadable_window_does_not_hide_the_others(timer, clock):
    timer.note("a", [requested(NIGHT, UNKNOWN)])
    timer.note("b", [requested(UNKNOWN)])
    clock.moment = DUSK
    assert timer.due() == ["a"]


def test_a_window_that_becomes_readable_counts_from_the_next_pass(timer, clock, monkeypatch):
    timer.note("a", [requested(UNKNOWN)])
    monkeypatch.setitem(
        timezones._zones, "Mars/Olympus", ((), timezones.Zone(ZoneInfo("Asia/Tokyo")))
    )
    timer.note("a", [requested(UNKNOWN)])
    clock.moment = datetime(2026, 11, 24, 15, tzinfo=UTC)
    assert timer.due() == ["a"]


def many(number):
    """Return an allocation with 32 windows that no other instance has."""
    return requested(
        *(
            Window(f"w{each}", f"{each} {number % 24} * * *", 60 + number, "Europe/Berlin")
            for each in range(32)
        )
    )


def test_a_tick_costs_the_same_for_any_number_of_instances(timer, clock, monkeypatch):
    monkeypatch.setattr(timezones, "_zones", {})
    timer.note("first", [requested(Window("w", "0 0 * * *", 60, "Europe/Berlin"))])
    timer.due()
    alone = steps.count(timer.due)
    for number in range(60):
        timer.note(str(number), [many(number)])
    assert steps.count(timer.due) == alone
    assert alone < 40

    class Unseen(dict):
        def items(self):
            raise AssertionError("a tick goes through all instances")

    timer._next = Unseen(timer._next)
    assert timer.due() == []


def test_a_pass_does_not_search_again_for_a_known_transition(timer, clock):
    allocation = many(1)
    timer.note("a", [allocation, allocation])
    for number in range(2, 20):
        timer.note(str(number), [many(number)])
    # As if they had displaced what is kept of schedules.
    windows._schedule_of.cache_clear()
    cron.parse.cache_clear()
    clock.moment += HOUR / 60
    assert timer.note("a", [allocation, allocation]) == clock.moment
    # Mostly what it takes to compare 32 windows.
    assert steps.count(lambda: timer.note("a", [allocation, allocation])) < 300
    always = requested(*(Window(f"w{each}", "* * * * *", 60 + each) for each in range(32)))
    timer.note("always", [always])
    assert steps.count(lambda: timer.note("always", [always])) < 300
    clock.moment += timedelta(days=1)
    assert steps.count(lambda: timer.note("always", [always])) > 300
