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
"""When windows begin and end, compared with a list made by going through all minutes."""

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from kongming import exception
from kongming.allocation import cron
from kongming.allocation.schedule import FAR
from kongming.allocation.windows import Window, _schedule_of
from kongming.tests import debian_cron, steps
from kongming.tests.thorough import THOROUGH

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
YEAR = datetime(2026, 1, 1, tzinfo=UTC)

HISTORY = (
    # A day is left out.
    ("Pacific/Apia", 2011),
    ("Pacific/Kwajalein", 1993),
    # Three hours both ways; seven.
    ("Antarctica/Casey", 2018),
    ("Antarctica/Vostok", 1994),
    # Half an hour both ways, not by daylight-saving time.
    ("America/Caracas", 2007),
    ("America/Caracas", 2016),
    # At a minute past midnight.
    ("America/St_Johns", 2007),
    ("Antarctica/Casey", 2020),
    # By an hour, half an hour and two hours; to midnight, and from it; back before the month ends.
    ("Africa/Cairo", 2027),
    ("Africa/Casablanca", 2027),
    ("America/Havana", 2027),
    ("Antarctica/Troll", 2027),
    ("Australia/Lord_Howe", 2027),
    ("Europe/Berlin", 2027),
    ("Pacific/Chatham", 2027),
)
# All zones, and years in which many were changed. That takes some minutes.
YEARS = (1993, 2011, 2018, 2027, 2028)


def nights():
    """Return changes of clocks with their zones, some of each kind or all, and rules to try."""
    found = [(zone, each) for zone, year in HISTORY for each in debian_cron.changes(zone, year)]
    for year in YEARS if THOROUGH else ():
        for zone, changes in debian_cron.zones_that_change(year):
            found += [(zone, change) for change in changes]
    return [
        # Of those of one kind each tries a third of the rules.
        pytest.param(
            zone,
            change,
            debian_cron.RULES if THOROUGH else debian_cron.RULES[number % 3 :: 3],
            id=f"{zone}-{change.at:%Y-%m-%d}",
        )
        for number, (zone, change) in enumerate(found)
    ]


@pytest.mark.parametrize(("zone", "change", "rules"), nights())
def test_each_minute_of_a_night_with_a_clock_change_is_scheduled_correctly(zone, change, rules):
    night = (min(abs(change.shift), 180) + 75) * MINUTE
    minutes = [change.at + minute * MINUTE for minute in range(-night // MINUTE, night // MINUTE)]
    shown = debian_cron.clock(zone, minutes[0] - DAY / 2, minutes[-1] + DAY)
    for rule in rules:
        starts = debian_cron.starts(rule, shown)
        edges = debian_cron.edges(starts, timedelta(seconds=rule.duration_s))
        window = Window("w", rule.start, rule.duration_s, zone)
        # Backwards each answer is computed again; forwards the last one is used.
        near = {each + side * MINUTE for each in (*edges, change.at) for side in (-1, 0, 1)}
        step = 30 if len(edges) == 2 else 1 if THOROUGH else 5
        backwards = sorted({*minutes[::step], *near.intersection(minutes)}, reverse=True)
        for moment in (*backwards, *minutes):
            place = bisect_right(edges, moment)
            assert window.is_in_force(moment) == place % 2, (rule.start, moment)
            found = window.next_change(moment)
            # The last one may be later than what was listed.
            assert found == edges[place] or edges[place] == edges[-1], (rule.start, moment)


@pytest.mark.parametrize(
    ("start", "duration_s", "zone", "end"),
    [
        # It ends only in the night that has 25 hours; where there is none, never.
        ("0 0 * * *", 86_400, "Europe/Berlin", "2027-10-31T22:00Z"),
        ("0 0 * * *", 86_400, "Asia/Tokyo", None),
        ("0 0 * * *", 86_400, "UTC", None),
        ("0 0 * * *", 90_000, "Europe/Berlin", None),
        ("0 0 * * *", 89_999, "Europe/Berlin", "2027-10-31T22:59:59Z"),
        # In the night of 23 hours it goes on, in that of 24 it does not.
        ("30 1 * * *", 82_800, "Europe/Berlin", "2026-11-24T23:30Z"),
        ("0 * * * *", 3600, "Europe/Berlin", None),
        ("0 */1 * * *", 3599, "Europe/Berlin", "2026-11-24T12:59:59Z"),
        # An hour that comes twice has fixed times once.
        ("0 0-23 * * *", 3600, "Europe/Berlin", "2027-10-31T01:00Z"),
        ("0 0-23 * * *", 7200, "Europe/Berlin", None),
        # Half an hour twice.
        ("0,30 0-23 * * *", 1800, "Australia/Lord_Howe", "2027-04-03T15:00Z"),
        ("0,30 * * * *", 1800, "Australia/Lord_Howe", None),
        ("* * * * *", 60, "Africa/Casablanca", None),
        ("* * * * *", 366 * 86_400, "Africa/Casablanca", None),
        ("0 0 */2 * *", 3 * 86_400, "UTC", None),
        ("0 0 1 * *", 31 * 86_400, "UTC", None),
        ("0 0 1 * *", 31 * 86_400, "Europe/Berlin", "2027-10-31T22:00Z"),
        ("0 0 1 * *", 30 * 86_400, "UTC", "2026-12-31T00:00Z"),
        ("0 0 1 1 *", 365 * 86_400, "UTC", "2028-12-31T00:00Z"),
        ("0 0 1 1 *", 366 * 86_400, "UTC", None),
    ],
)
def test_a_window_that_begins_again_before_it_ends_continues(start, duration_s, zone, end):
    window = Window("w", start, duration_s, zone)
    moment = datetime(2026, 11, 24, 12, tzinfo=UTC)
    assert window.is_in_force(moment)
    assert window.next_change(moment) == (end and datetime.fromisoformat(end))


def test_a_window_that_ends_in_a_skipped_hour_lasts_until_the_end_of_the_gap():
    window = Window("w", "30 1,2 * * *", 1800, "Europe/Berlin")
    spring = datetime(2027, 3, 28, 1, tzinfo=UTC)
    assert window.next_change(spring - 15 * MINUTE) == spring + 30 * MINUTE
    # Nothing is left out on the day before.
    assert window.next_change(spring - DAY - 15 * MINUTE) == spring - DAY
    assert not window.is_in_force(spring - DAY)


def test_a_distant_end_is_found_as_it_approaches():
    # 2100 is no leap year: from 2097 on no year is longer than the window before 2104.
    window = Window("w", "0 0 1 1 *", 365 * 86_400)
    end = datetime(2104, 12, 31, tzinfo=UTC)
    for before, found in ((2700, None), (2300, None), (FAR / DAY - 1, end), (1, end)):
        assert window.is_in_force(end - before * DAY)
        assert window.next_change(end - before * DAY) == found


def test_a_time_that_every_clock_change_skips_never_occurs():
    fields = "w", "* 2 * 3 0L", 3600, "Europe/Berlin"
    with pytest.raises(exception.RequestInvalid, match="the clocks of Europe/Berlin skip it"):
        Window(*fields)
    window = Window(*fields, checked=False)
    assert not window.is_in_force(YEAR)
    assert window.next_change(YEAR) is None
    # A fixed time comes afterwards; elsewhere there is that hour.
    assert Window("w", "15 2 * 3 0L", 3600, "Europe/Berlin").next_change(YEAR) == datetime(
        2026, 3, 29, 1, tzinfo=UTC
    )
    assert Window("w", "* 2 * 3 0L", 3600).next_change(YEAR).hour == 2


@pytest.mark.parametrize(
    ("start", "duration_s", "zone"),
    [
        ("0 22 * * mon-fri", 8 * 3600, "Europe/Berlin"),
        ("0 0 * * *", 86_400, "UTC"),
        ("0 0 * * *", 2 * 86_400, "Africa/Casablanca"),
        ("* * * * *", 366 * 86_400, "Asia/Gaza"),
        ("* * * * *", 60, "Asia/Gaza"),
        ("*/2 * * * *", 60, "Europe/Berlin"),
        ("0 0 */2 * *", 3 * 86_400, "Asia/Gaza"),
        ("0 0 1 1 *", 366 * 86_400, "America/Nuuk"),
        ("0 0 29 2 */7", 366 * 86_400, "America/Nuuk"),
        ("* 2 * 3 0L", 3600, "Europe/Berlin"),
    ],
)
def test_no_window_takes_more_than_a_bounded_number_of_steps(start, duration_s, zone):
    moment = datetime(2026, 11, 24, 12, tzinfo=UTC)

    def check(seconds=0):
        window = Window("w", start, duration_s, zone, checked=False)
        window.is_in_force(moment + seconds * MINUTE / 60)
        window.next_change(moment + seconds * MINUTE / 60)

    # The changes of the zone's clocks are found first.
    check()
    _schedule_of.cache_clear()
    cron.parse.cache_clear()
    assert steps.count(check) < 15_000
    # Then it is known, also to another window of the same kind.
    assert steps.count(partial(check, 30)) < 50
