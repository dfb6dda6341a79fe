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


from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from operator import attrgetter
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st
import pytest

from kongming import exception
from kongming.allocation.windows import Window, in_force, next_change, preview
from kongming.tests import steps
from kongming.tests.thorough import THOROUGH

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = Window("night", "0 22 * * mon-fri", 8 * 3600, "Europe/Berlin")
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def berlin(*fields, fold=0):
    return datetime(*fields, tzinfo=BERLIN, fold=fold)


def test_a_window_begins_and_ends():
    # A Friday.
    assert not NIGHT.is_in_force(berlin(2026, 11, 20, 21, 59, 59))
    assert NIGHT.is_in_force(berlin(2026, 11, 20, 22))
    assert NIGHT.is_in_force(berlin(2026, 11, 21, 5, 59, 59))
    assert not NIGHT.is_in_force(berlin(2026, 11, 21, 6))
    assert NIGHT.next_change(berlin(2026, 11, 20, 12)) == berlin(2026, 11, 20, 22)
    assert NIGHT.next_change(berlin(2026, 11, 20, 23)) == berlin(2026, 11, 21, 6)
    # The weekend is free.
    assert NIGHT.next_change(berlin(2026, 11, 21, 6)) == berlin(2026, 11, 23, 22)


@pytest.mark.parametrize(
    ("start", "begin", "end"),
    [
        # 02:30 does not exist on that day; it comes right after the gap.
        (berlin(2026, 3, 28, 12), berlin(2026, 3, 29, 3), berlin(2026, 3, 29, 4)),
        # 02:30 comes twice on that day: the first counts, and an hour later it ends.
        (
            berlin(2026, 10, 24, 12),
            berlin(2026, 10, 25, 2, 30),
            berlin(2026, 10, 25, 2, 30, fold=1),
        ),
    ],
)
def test_daylight_saving_changes(start, begin, end):
    window = Window("w", "30 2 * * *", 3600, "Europe/Berlin")
    assert window.next_change(start) == begin.astimezone(UTC)
    assert window.next_change(begin) == end.astimezone(UTC)
    assert window.is_in_force(begin)
    assert not window.is_in_force(end)
    assert window.next_change(end).astimezone(BERLIN).hour == 2


def test_the_hours_of_a_window_are_elapsed_hours():
    night = Window("w", "0 22 * * *", 8 * 3600, "Europe/Berlin")
    assert night.next_change(berlin(2026, 3, 28, 23)) == berlin(2026, 3, 29, 7).astimezone(UTC)
    assert night.next_change(berlin(2026, 10, 24, 23)) == berlin(2026, 10, 25, 5).astimezone(UTC)


def test_a_leap_day():
    window = Window("w", "0 0 29 2 *", 86_400)
    assert window.next_change(datetime(2026, 1, 1, tzinfo=UTC)) == datetime(
        2028, 2, 29, tzinfo=UTC
    )
    assert window.is_in_force(datetime(2028, 2, 29, 23, 59, tzinfo=UTC))


def test_the_last_of_overlapping_windows_wins():
    day = Window("day", "0 8 * * *", 10 * 3600)
    lunch = Window("lunch", "0 12 * * *", 3600)

    def name(windows, hour):
        found = in_force(windows, datetime(2026, 11, 24, hour, 30, tzinfo=UTC))
        return found and found.name

    assert [name([day, lunch], hour) for hour in (7, 9, 12, 13, 18)] == [
        None,
        "day",
        "lunch",
        "day",
        None,
    ]
    assert name([lunch, day], 12) == "day"


def test_a_window_that_begins_again_before_it_ends_continues():
    window = Window("w", "0 * * * *", 3600)
    moment = datetime(2026, 11, 24, tzinfo=UTC)
    assert window.is_in_force(moment)
    assert window.next_change(moment) is None


def test_a_preview_has_no_gaps():
    begin = berlin(2026, 11, 23).astimezone(UTC)
    spans = list(preview([NIGHT], begin, begin + timedelta(days=7)))
    assert [span.window for span in spans] == [None, "night"] * 5 + [None]
    assert spans[0].begin == begin
    assert spans[-1].end == begin + timedelta(days=7)
    assert all(one.end == two.begin for one, two in pairwise(spans))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (("", "0 0 * * *", 3600), "window name ''"),
        (("a b", "0 0 * * *", 3600), "window name 'a b'"),
        (("a\n", "0 0 * * *", 3600), r"window name 'a\\n'"),
        (("a" * 64, "0 0 * * *", 3600), "window name 'aaa"),
        (("w", "0 0 * *", 3600), "window w: start '0 0 [*] [*]' .* five fields"),
        (("w", "0 0 0 * * *", 3600), "five fields"),
        (("w", "0 25 * * *", 3600), "window w: .* the hour '25' can't be read"),
        (("w", "0 0 30 2 *", 3600), "never occurs"),
        (("w", "0 0 * * \u017fun", 3600), "is not of at most 256 letters"),
        (("w", "0 0 * * *\n", 3600), "is not of at most 256 letters"),
        (("w", "0 0 * *\u00a0*", 3600), "is not of at most 256 letters"),
        (("w", "0 0 * * *".ljust(257), 3600), "is not of at most 256 letters"),
        (("w", "0," * 400_000 + "0 0 * * *", 3600), "is not of at most 256 letters"),
        (("w", "0 0 * * *", 59), "duration of 59 s is not from 60 to 31622400 s"),
        (("w", "0 0 * * *", 366 * 86_400 + 1), "duration of 31622401 s"),
        (("w", "0 0 * * *", 10**9), "duration of 1000000000 s"),
        (
            ("w", "0 0 * * *", 3600, "Mars/Olympus"),
            "window w: 'Mars/Olympus' is not an IANA",
        ),
        (("w", "0 0 * * *", 3600, "../UTC"), "IANA time zone"),
        # What else a zone directory holds: this machine's own zone, none, leap seconds.
        (("w", "0 0 * * *", 3600, "localtime"), "IANA time zone"),
        (("w", "0 0 * * *", 3600, "posixrules"), "IANA time zone"),
        (("w", "0 0 * * *", 3600, "Factory"), "IANA time zone"),
        (("w", "0 0 * * *", 3600, "right/Europe/Berlin"), "IANA time zone"),
        (("w", "0 0 * * *", 3600, "posix/Europe/Berlin"), "IANA time zone"),
        (("w", "0 0 * * *", 3600, "/etc/localtime"), "IANA time zone"),
        (("w", "0 0 * * *", 3600, "europe/berlin"), "IANA time zone"),
        (("w", "0 0 * * *", 3600, "Europe"), "IANA time zone"),
        (("w", "0 0 * * *", 3600, "Europe/Berlin\n"), "IANA time zone"),
        (("w", "0 0 * * *", 3600, ""), "IANA time zone"),
        (
            ("w", "0 0 * * *", 3600, "localtime"),
            "'localtime' is not the name of an IANA",
        ),
        (("w", "0 0 * * *", 3600, "right/UTC"), "'right/UTC' is not the name"),
    ],
)
def test_an_invalid_window_is_refused(fields, words):
    with pytest.raises(exception.RequestInvalid, match=words) as refusal:
        Window(*fields)
    assert len(str(refusal.value)) < 300
    # What was kept once is read nevertheless.
    kept = Window(*fields, checked=False)
    with pytest.raises(exception.RequestInvalid, match=words):
        kept.check()


@pytest.mark.parametrize(
    "fields",
    [
        ("a" * 63, "0 0 * * *".ljust(256), 60, "America/Argentina/ComodRivadavia"),
        ("0", "0\t0 * * *", 366 * 86_400, "Etc/GMT+5"),
    ],
)
def test_a_value_at_the_limit_is_accepted(fields):
    assert asdict(Window(*fields)) == dict(
        zip(("name", "start", "duration_s", "timezone"), fields, strict=True)
    )


@pytest.mark.parametrize(
    "fields",
    [
        ("w", "0 25 * * *", 3600, "UTC"),
        ("w", "0 0 * * *", 3600, "Mars/Olympus"),
        ("w", "0 0 * * *", 10**400, "UTC"),
    ],
)
def test_a_stored_window_without_a_meaning_is_an_error_only_when_it_counts(fields):
    kept = Window(*fields, checked=False)
    assert kept == Window(*fields, checked=False)
    for check in (kept.is_in_force, kept.next_change):
        with pytest.raises(exception.RequestInvalid, match="^window w: "):
            check(YEAR)


def test_a_window_stored_before_a_rule_was_added_still_counts():
    kept = Window("w", "0 0 * * *".ljust(300), 3600, "UTC", checked=False)
    assert kept.is_in_force(YEAR)
    assert kept.next_change(YEAR) == YEAR + 60 * MINUTE


windows = st.builds(
    Window,
    st.sampled_from(["a", "b", "c"]),
    st.builds(
        "{} {} * * {}".format,
        st.sampled_from(["0", "30", "*/15", "5,50"]),
        st.sampled_from(["*", "0", "6-8", "*/5", "23"]),
        st.sampled_from(["*", "mon-fri", "sun"]),
    ),
    st.sampled_from([60, 900, 3600, 5 * 3600, 26 * 3600]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
)
moments = st.integers(0, 365 * 24 * 60).map(lambda minutes: YEAR + minutes * MINUTE)


@given(windows=st.lists(windows, max_size=3), moment=moments)
def test_the_window_in_force_is_constant_between_two_transitions(windows, moment):
    change = next_change(windows, moment)
    here = in_force(windows, moment)
    if change is None:
        assert {in_force(windows, moment + day * DAY) for day in range(0, 1826, 83)} == {here}
        return
    assert change > moment
    inside = [moment + (change - moment) * part / 7 for part in range(7)]
    assert {in_force(windows, each) for each in inside} == {here}


@given(window=windows, moment=moments)
def test_the_next_change_of_one_is_a_change(window, moment):
    change = window.next_change(moment)
    if change is not None:
        assert window.is_in_force(change) != window.is_in_force(moment)
        assert window.is_in_force(change - MINUTE / 60) == window.is_in_force(moment)


@given(windows=st.lists(windows, max_size=3, unique_by=attrgetter("name")), moment=moments)
def test_a_preview_has_no_gaps_and_an_end(windows, moment):
    end = moment + DAY / 4
    spans = list(preview(windows, moment, end))
    assert (spans[0].begin, spans[-1].end) == (moment, end)
    assert all(one.end == two.begin and one.window != two.window for one, two in pairwise(spans))
    for span in spans:
        assert span.begin < span.end
        for here in (span.begin, span.end - MINUTE / 60):
            found = in_force(windows, here)
            assert (found and found.name) == span.window


def test_a_preview_of_many_days_with_an_hourly_window_ends():
    # The clocks are changed meanwhile.
    begin, days = YEAR + 60 * DAY, 366 if THOROUGH else 40
    hourly = Window("hourly", "30 * * * *", 600, "Europe/Berlin")
    spans = list(preview([NIGHT, hourly], begin, begin + days * DAY))
    assert spans[-1].end == begin + days * DAY
    assert [span.window for span in spans].count("hourly") == days * 24


def test_a_known_zone_is_not_parsed_again():
    def read():
        Window("w", "17 3 * * 1-5", 4711, "Europe/Berlin")

    read()
    assert steps.count(read) < 20
