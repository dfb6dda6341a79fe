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
"""Cron expressions: which minutes of a wall clock they name.

Time zones do not matter here. An expression has a bit for each minute of a day and for each day of
a month, so that the next minute is found in a few steps, however rare it is.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
import functools

from cronsim import CronSim, CronSimError

from kongming import exception
from kongming.allocation.cpuset import shown

_FIELDS = (
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31, L or LW"),
    ("month", "1 to 12 or jan to dec"),
    ("day of the week", "0 to 7 or sun to sat"),
)

_DAY = timedelta(days=1)
_MINUTES_OF_DAY = 24 * 60
_ANY_MOMENT = datetime.fromisoformat("2000-01-01")
# A calendar, by leap year and first weekday, repeats after at most 40 years: a day that does not
# occur within them never occurs.
_MONTHS_MAX = 41 * 12
_EACH_7TH = sum(1 << day for day in range(0, 35, 7))
_EACH, _LAST = 0, -1


@dataclass(frozen=True, slots=True)
class Expression:
    """A cron expression that was read. Times are naive: those of a wall clock.

    :ivar times: the minutes of a day that it names; bit n is the n-th.
    :ivar months: the months; bit n is month n.
    :ivar dates: the days of the month by number; bit 0 is the first.
    :ivar last_date: whether it names the last day of the month, too.
    :ivar last_workday: whether it names the last day from Monday to Friday, too.
    :ivar weekdays: pairs of a weekday, 0 is Monday, and which one of the month: 1 to 5, or
        ``_EACH``, or ``_LAST``.
    :ivar both: whether a day must be named by date and by weekday; otherwise one of them is
        enough.
    :ivar has_wildcard: whether its minute or hour begins with ``*``.
    """

    times: int
    months: int
    dates: int
    last_date: bool
    last_workday: bool
    weekdays: frozenset[tuple[int, int]]
    both: bool
    has_wildcard: bool
    _days_of_kinds: dict[tuple[int, int], int] = field(
        default_factory=dict, compare=False, repr=False
    )

    def first_from(self, wall: datetime) -> datetime | None:
        """Return the first minute named at or after a time; None if there is none."""
        if wall.second or wall.microsecond:
            wall = wall.replace(second=0, microsecond=0) + timedelta(minutes=1)
        day, minute = wall.date(), _minute_of_day(wall)
        rest = self.times >> minute
        found = self._first_day_from(day if rest else day + _DAY)
        if found is None:
            return None
        return _at(found, minute + _lowest(rest) if found == day else _lowest(self.times))

    def last_until(self, wall: datetime, since: datetime) -> datetime | None:
        """Return the last minute named at or before a time; None if it is before ``since``."""
        day = wall.date()
        times = self.times & ((2 << _minute_of_day(wall)) - 1)
        found = self._last_day_until(day if times else day - _DAY, since.date())
        if found is None:
            return None
        last = _at(found, _highest(times if found == day else self.times))
        return last if last >= since else None

    def last_of_run(self, wall: datetime, reach: int, until: datetime) -> datetime | None:
        """Return the first minute named, from ``wall`` on, that none follows within ``reach``.

        :param wall: a minute that it names.
        :param reach: in minutes.
        :return: None if there is none before ``until``; the result may also be a little later.
        """
        day, minute = wall.date(), _minute_of_day(wall)
        first, last = _lowest(self.times), _highest(self.times)
        # The minute after the last one of a day belongs to another day.
        breaks = self.times & ~_followed(self.times, reach) & ~(1 << last)
        if not breaks:
            found = self._last_day_of_run(day, (reach + last - first) // _MINUTES_OF_DAY, until)
            return None if found is None else _at(found, last)
        if breaks >> minute:
            return _at(day, minute + _lowest(breaks >> minute))
        following = self._first_day_from(day + _DAY)
        if following is None or _at(following, first) - _at(day, last) > timedelta(minutes=reach):
            return _at(day, last)
        return _at(following, _lowest(breaks))

    def occurs(self) -> bool:
        """Return whether it names any minute at all."""
        return self._first_day_from(_ANY_MOMENT.date()) is not None

    def _first_day_from(self, day: date) -> date | None:
        for month, days in self._months_from(day):
            if days:
                return month + _lowest(days) * _DAY
        return None

    def _last_day_until(self, day: date, since: date) -> date | None:
        month = day.replace(day=1)
        days = self._days_of(month) & ((1 << day.day) - 1)
        while not days and month > since:
            month = (month - _DAY).replace(day=1)
            days = self._days_of(month)
        return month + _highest(days) * _DAY if days else None

    def _last_day_of_run(self, day: date, reach: int, until: datetime) -> date | None:
        """Return the first day named, from ``day`` on, that none follows within ``reach`` days."""
        for month, days in self._months_from(day):
            if not days:
                continue
            if (month + _lowest(days) * _DAY - day).days > reach:
                return day
            breaks = days & ~_followed(days, reach) & ~(1 << _highest(days))
            if breaks:
                return month + _lowest(breaks) * _DAY
            day = month + _highest(days) * _DAY
            if day >= until.date():
                return None
        return day

    def _months_from(self, day: date) -> Iterator[tuple[date, int]]:
        """Yield months by their first day, with the days named; no day before ``day``."""
        month = day.replace(day=1)
        yield month, self._days_of(month) >> (day.day - 1) << (day.day - 1)
        for number in range(day.month, day.month + _MONTHS_MAX):
            year = day.year + number // 12
            if year > date.max.year:
                return
            month = date(year, number % 12 + 1, 1)
            yield month, self._days_of(month)

    def _days_of(self, month: date) -> int:
        """Return the days named of a month, given by its first day."""
        if not self.months >> month.month & 1:
            return 0
        kind = calendar.monthrange(month.year, month.month)
        days = self._days_of_kinds.get(kind)
        if days is None:
            days = self._days_of_kinds[kind] = self._days_of_kind(*kind)
        return days

    def _days_of_kind(self, begins_with: int, length: int) -> int:
        """Return the days named of a month with this first weekday and length."""
        whole = (1 << length) - 1
        by_date = self.dates & whole
        if self.last_date:
            by_date |= 1 << (length - 1)
        if self.last_workday:
            beyond_friday = (begins_with + length - 1) % 7 - 4
            by_date |= 1 << (length - 1 - max(0, beyond_friday))
        by_weekday = 0
        for weekday, which in self.weekdays:
            days = _EACH_7TH << (weekday - begins_with) % 7 & whole
            if which == _LAST:
                days = 1 << _highest(days)
            elif which != _EACH:
                days &= 0b1111111 << 7 * (which - 1)
            by_weekday |= days
        return by_date & by_weekday if self.both else by_date | by_weekday


@functools.lru_cache(maxsize=1024)
def parse(text: str) -> Expression:
    """Read a cron expression of five fields.

    :raises RequestInvalid: naming the field that can't be read.
    """
    words = text.split()
    if len(words) != len(_FIELDS):
        raise exception.RequestInvalid(
            f"start {shown(text)} is not a cron expression of five fields, as in "
            "'0 22 * * mon-fri'"
        )
    try:
        read = CronSim(text, _ANY_MOMENT)
    except (CronSimError, ValueError):
        raise _explained(text, words) from None
    minutes = _bits(read.minutes)
    plain = {day for day in read.days if day > 0}
    found = Expression(
        times=sum(minutes << 60 * hour for hour in read.hours),
        months=_bits(read.months),
        dates=_bits(plain) >> 1,
        last_date=CronSim.LAST in read.days,
        last_workday=CronSim.LAST_WEEKDAY in read.days,
        weekdays=frozenset(map(_weekday, read.weekdays)),
        both=read.day_and,
        has_wildcard=words[0].startswith("*") or words[1].startswith("*"),
    )
    if not found.occurs():
        raise _never(text)
    return found


def _weekday(item: int | tuple[int, int]) -> tuple[int, int]:
    weekday, which = item if isinstance(item, tuple) else (item, _EACH)
    # The library's week begins with Sunday, which is 7 as well.
    return (weekday - 1) % 7, _LAST if which == CronSim.LAST else which


def _explained(text: str, words: list[str]) -> exception.RequestInvalid:
    """Return the error that names the field that can't be read."""
    for number, ((name, values), word) in enumerate(zip(_FIELDS, words, strict=True)):
        alone = ["*"] * len(_FIELDS)
        alone[number] = word
        try:
            CronSim(" ".join(alone), _ANY_MOMENT)
        except (CronSimError, ValueError):
            return exception.RequestInvalid(
                f"start {shown(text)} is not a cron expression: the {name} {shown(word)} can't "
                f"be read; it may be * or {values}, in ranges (-), steps (/) and lists (,)"
            )
    return _never(text)


def _never(text: str) -> exception.RequestInvalid:
    return exception.RequestInvalid(
        f"start {shown(text)} never occurs: its months have no such day"
    )


def _bits(numbers: set[int]) -> int:
    return sum(1 << number for number in numbers)


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


def _highest(bits: int) -> int:
    return bits.bit_length() - 1


def _followed(bits: int, reach: int) -> int:
    """Return the places that a bit follows at most ``reach`` places later."""
    near, width = bits >> 1, 1
    while width < min(reach, bits.bit_length()):
        step = min(width, reach - width)
        near |= near >> step
        width += step
    return near if reach else 0


def _minute_of_day(wall: datetime) -> int:
    return wall.hour * 60 + wall.minute


def _at(day: date, minute: int) -> datetime:
    return datetime.combine(day, time(minute // 60, minute % 60))
