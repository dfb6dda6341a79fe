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
"""Cron expressions, compared with each minute looked at by itself."""

from datetime import datetime, timedelta

from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st
import pytest

from kongming import exception
from kongming.allocation import cron
from kongming.tests import steps

iso = datetime.fromisoformat
MINUTE = timedelta(minutes=1)
SOON = iso("2027-03-01")
FAR = iso("2040-01-01")


def days(start, year=2027):
    """Return all days of a year that an expression names at midnight, as month and day."""
    expression, found = cron.parse(f"0 0 {start}"), []
    moment = iso(f"{year}-01-01")
    while (moment := expression.first_from(moment)) and moment.year == year:
        found.append((moment.month, moment.day))
        moment += MINUTE
    return found


@pytest.mark.parametrize(
    ("start", "first"),
    [
        ("0 22 * * *", iso("2027-03-01 22:00")),
        ("0 0 * * *", iso("2027-03-01")),
        ("*/15 * * * *", iso("2027-03-01")),
        ("7/20 5 * * *", iso("2027-03-01 05:07")),
        ("59 23 31 12 *", iso("2027-12-31 23:59")),
        ("0 0 29 2 *", iso("2028-02-29")),
        ("0 0 1 jan *", iso("2028-01-01")),
        ("0 0 1 JAN-feb *", iso("2028-01-01")),
        ("0 0 * * sun", iso("2027-03-07")),
        ("0 0 * * 0", iso("2027-03-07")),
        ("0 0 * * 7", iso("2027-03-07")),
        ("0 0 * * Mon-FRI", iso("2027-03-01")),
        ("0 0 L * *", iso("2027-03-31")),
        ("0 0 LW 5 *", iso("2027-05-31")),
        ("0 0 * * mon#2", iso("2027-03-08")),
        ("0 0 * * 5L", iso("2027-03-26")),
        ("  0\t22 * *   * ", iso("2027-03-01 22:00")),
    ],
)
def test_an_expression_names_a_minute_first(start, first):
    expression = cron.parse(start)
    assert expression.first_from(SOON) == first
    assert expression.first_from(first) == first
    assert expression.first_from(first - MINUTE / 60) == first
    following = expression.first_from(first + MINUTE / 60)
    assert following >= first + MINUTE
    assert expression.last_until(following - MINUTE, SOON) == first


@pytest.mark.parametrize(
    ("start", "named"),
    [
        # With a * in one of the two, a day has to be named by both.
        ("*/10 * mon", [(1, 11), (2, 1), (3, 1), (5, 31), (6, 21), (10, 11), (11, 1)]),
        ("13 * */5", [(6, 13), (8, 13)]),
        # Without, by one of them.
        ("1-2 2 mon", [(2, 1), (2, 2), (2, 8), (2, 15), (2, 22)]),
        ("L 2 *", [(2, 28)]),
        ("28,L 1-3 *", [(1, 28), (1, 31), (2, 28), (3, 28), (3, 31)]),
        # The last from Monday to Friday, where the month ends on a Saturday, Sunday, Monday.
        ("LW 1,2,5,7,10 *", [(1, 29), (2, 26), (5, 31), (7, 30), (10, 29)]),
        ("* 2 sun#1,sat#4", [(2, 7), (2, 27)]),
        ("* 2 sun#5,mon#4", [(2, 22)]),
        ("* 1,3,5 sun#5", [(1, 31), (5, 30)]),
        ("* 2,3 0L", [(2, 28), (3, 28)]),
        ("* 2,3 1L", [(2, 22), (3, 29)]),
    ],
)
def test_days_are_named_by_date_and_weekday(start, named):
    assert days(start) == named


def test_a_leap_day_counts_and_29_february_is_no_day_of_other_years():
    assert days("28-30 2 *", 2028) == [(2, 28), (2, 29)]
    assert days("L 2 *", 2028) == [(2, 29)]
    assert days("28-30 2 *") == [(2, 28)]


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("", "is not a cron expression of five fields, as in '0 22"),
        ("0 0 * *", "five fields"),
        ("0 0 0 * * *", "five fields"),
        ("60 0 * * *", r"the minute '60' can't be read; it may be \* or 0 to 59"),
        ("0 24 * * *", r"the hour '24' .* 0 to 23"),
        ("0 0 0 * *", "the day of the month '0' .* 1 to 31"),
        ("0 0 * 13 *", "the month '13' .* 1 to 12 or jan to dec"),
        ("0 0 * * fri-mon", "the day of the week 'fri-mon' .* sun to sat"),
        ("0 0 * * mon#6", "the day of the week 'mon#6'"),
        ("*/0 0 * * *", r"the minute '\*/0'"),
        ("-1 0 * * *", "the minute '-1'"),
        ("0,,1 0 * * *", "the minute '0,,1'"),
        ("² 0 * * *", r"the minute '\\xb2'"),
        (f"{'9' * 5000} 0 * * *", r"the minute '999.*\.\.\.'"),
        ("0 0 30 2 *", "never occurs"),
        ("0 0 31 4,6,9,11 *", "never occurs"),
        ("0 0 */31 * mon#2", "never occurs"),
    ],
)
def test_an_invalid_expression_is_refused_with_the_field(start, words):
    with pytest.raises(exception.RequestInvalid, match=words) as refusal:
        cron.parse(start)
    assert len(str(refusal.value)) < 300


def field(low, high):
    number = st.integers(low, high)
    return st.one_of(
        st.just("*"),
        st.builds("*/{}".format, st.integers(1, high)),
        st.builds("{}".format, number),
        st.lists(number, min_size=2, max_size=4).map(lambda found: ",".join(map(str, found))),
        st.tuples(number, number).map(lambda found: "{}-{}".format(*sorted(found))),
        st.tuples(number, number).map(lambda found: "{}-{}/3".format(*sorted(found))),
    )


expressions = st.tuples(
    field(0, 59),
    field(0, 23),
    st.just("*") | field(1, 28) | st.just("L") | st.just("5,LW"),
    st.just("*") | field(1, 12),
    st.just("*") | field(0, 7) | st.just("2#1,5L"),
).map(" ".join)
walls = st.datetimes(iso("2020-01-01"), iso("2032-01-01")).map(
    lambda wall: wall.replace(second=0, microsecond=0)
)


@given(start=expressions, wall=walls)
def test_the_first_minute_is_the_librarys_where_no_clock_is_changed(start, wall):
    # In UTC, from a second before: the library looks for what is strictly later.
    assert cron.parse(start).first_from(wall) == next(CronSim(start, wall - MINUTE / 60))


@given(start=expressions, wall=walls)
def test_the_last_minute_is_the_one_without_a_successor(start, wall):
    expression = cron.parse(start)
    last = expression.last_until(wall, wall - timedelta(days=400))
    if last is None:
        assert expression.first_from(wall - timedelta(days=400)) > wall
        return
    assert wall - timedelta(days=400) <= last <= wall
    assert expression.first_from(last) == last
    assert expression.first_from(last + MINUTE) > wall
    assert expression.last_until(wall, last) == last
    assert expression.last_until(wall, last + MINUTE) is None


@given(
    start=expressions,
    wall=walls,
    reach=st.sampled_from([0, 1, 2, 5, 20, 59, 60, 61, 1439, 1440, 1441, 2880, 10080, 44640]),
)
def test_a_run_ends_with_the_first_minute_that_is_not_followed_soon(start, wall, reach):
    expression = cron.parse(start)
    first = found = expression.first_from(wall)
    until = first + timedelta(days=40)
    while found < until and (following := expression.first_from(found + MINUTE)):
        if following - found > reach * MINUTE:
            break
        found = following
    last = expression.last_of_run(first, reach, until)
    if found < until:
        assert last == found
    else:
        assert last is None or last >= until


@pytest.mark.parametrize(
    ("start", "reach", "last"),
    [
        ("0 0 * * *", 1440, None),
        ("0 0 * * *", 1439, SOON),
        ("* * * * *", 1, None),
        ("* * * * *", 0, SOON),
        ("0 0 1 * *", 31 * 1440, None),
        # From the first of March on, 30 days are not enough.
        ("0 0 1 * *", 31 * 1440 - 1, SOON),
        ("0 0 1 1 *", 366 * 1440, None),
        ("0 0 1 1 *", 365 * 1440, iso("2028-01-01")),
        ("0 0 * * mon-fri", 3 * 1440, None),
        ("0 0 * * mon-fri", 3 * 1440 - 1, iso("2027-03-05")),
        ("30 6,12 * * *", 18 * 60, None),
        ("30 6,12 * * *", 18 * 60 - 1, iso("2027-03-01 12:30")),
        ("0-30 6 * * *", 1410, None),
        ("0-30 6 * * *", 1409, iso("2027-03-01 06:30")),
    ],
)
def test_a_run_may_be_endless(start, reach, last):
    expression = cron.parse(start)
    assert expression.last_of_run(expression.first_from(SOON), reach, FAR) == last


@pytest.mark.parametrize(
    "start", ["0 0 29 2 *", "0 0 29 2 */7", "0 0 */30 1 sun#5", "59 23 31 12 *", "* * * * *"]
)
def test_a_minute_is_found_in_few_steps_however_rare_it_is(start):
    expression = cron.parse(start)
    # Across 2100, which is no leap year, 29 February is a Sunday only after 40 years.
    for wall in (SOON, iso("2072-03-01")):
        assert expression.first_from(wall).year - wall.year <= 40
        assert steps.count(lambda wall=wall: expression.first_from(wall)) < 3_000


def test_the_last_days_of_the_calendar():
    expression = cron.parse("0 0 1 1 *")
    assert expression.first_from(iso("9998-06-01")) == iso("9999-01-01")
    assert expression.first_from(iso("9999-06-01")) is None


def test_spellings_of_the_same_times_stay_equal_after_any_query():
    one, other = cron.parse("0 0 * jan mon"), cron.parse("0 0 * 1 1")
    one.first_from(SOON)
    assert one == other
    assert len({one, other}) == 1
