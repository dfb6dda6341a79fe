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
"""Debian's cron, minute by minute: an independent list of starts for the tests.

It shares nothing with the product: a rule is a function that looks at the
clock on the wall, and the clock is looked at in each minute that passes, as
the daemon does (``cron.c``, the loop in ``main``).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
import functools
from zoneinfo import ZoneInfo, available_timezones

MINUTE = timedelta(minutes=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_THREE_HOURS = 180

Clock = list[tuple[datetime, int]]


@dataclass(frozen=True)
class Rule:
    """An expression, and what it means.

    :ivar names: returns whether it names what the clock on the wall shows.
    :ivar duration_s: how long that lasts which begins so.
    :ivar has_wildcard: whether minute or hour begins with ``*``.
    """

    start: str
    names: Callable[[datetime], bool]
    duration_s: int = 60
    has_wildcard: bool = False


_FIVES = (5, 15, 25)

RULES = (
    Rule("30 2 * * *", lambda wall: (wall.hour, wall.minute) == (2, 30), 3600),
    Rule("0,15,45 0-4 * * *", lambda wall: wall.hour < 5 and wall.minute in (0, 15, 45), 960),
    Rule("59 23 * * *", lambda wall: (wall.hour, wall.minute) == (23, 59), 36_000),
    Rule("5-25/10 1,2,22 * * 0-6", lambda wall: wall.hour in (1, 2, 22) and wall.minute in _FIVES),
    Rule("0 */2 * * *", lambda wall: wall.hour % 2 + wall.minute == 0, 5400, has_wildcard=True),
    Rule("0 */3 * * *", lambda wall: wall.hour % 3 + wall.minute == 0, 7200, has_wildcard=True),
    Rule("15,45 * * * *", lambda wall: wall.minute in (15, 45), has_wildcard=True),
    Rule("*/20 2 * * *", lambda wall: wall.hour == 2 and wall.minute % 20 == 0, has_wildcard=True),
    Rule("* * * * *", lambda wall: True, has_wildcard=True),
)


@dataclass(frozen=True)
class Change:
    """A moment at which the clocks of a zone are put forth (or back) by so many minutes."""

    at: datetime
    shift: int


def clock(zone: str, begin: datetime, end: datetime) -> Clock:
    """Give each minute that passes, and what the clock shows then, in minutes."""
    info, found = ZoneInfo(zone), []
    for number in range((end - begin) // MINUTE):
        moment = begin + number * MINUTE
        shown = moment.astimezone(info).replace(tzinfo=UTC)
        found.append((moment, (shown - _EPOCH) // MINUTE))
    return found


def starts(rule: Rule, shown: Clock) -> Iterator[datetime]:
    """Give the starts, while the clock shows that."""
    named = functools.cache(lambda minute: rule.names(_EPOCH + minute * MINUTE))
    done = shown[0][1] - 1
    for moment, minute in shown:
        ahead = minute - done
        if rule.has_wildcard:
            due = named(minute)
        elif 0 < ahead <= _THREE_HOURS:
            due = named(minute) or any(named(each) for each in range(done + 1, minute))
            done = minute
        elif -_THREE_HOURS < ahead <= 0:
            due = False
        else:
            due = named(minute)
            done = minute
        if due:
            yield moment


def edges(begins: Iterable[datetime], duration: timedelta) -> list[datetime]:
    """Give when that is in force, which begins so and lasts so long: begin, end, begin, ..."""
    found: list[datetime] = []
    for begin in begins:
        if found and begin <= found[-1]:
            found[-1] = begin + duration
        else:
            found += [begin, begin + duration]
    return found


def changes(zone: str, year: int) -> tuple[Change, ...]:
    """Find when the clocks of a zone are changed in a year, to the minute."""
    info, found = ZoneInfo(zone), []
    day, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    while day < end:
        if _offset(info, day) != _offset(info, day + timedelta(days=1)):
            at = day
            for step in (timedelta(hours=1), MINUTE):
                while _offset(info, at + step) == _offset(info, at):
                    at += step
            shift = _offset(info, at + MINUTE) - _offset(info, at)
            found.append(Change(at + MINUTE, shift // MINUTE))
        day += timedelta(days=1)
    return tuple(found)


def zones_that_change(year: int, *, every: int = 1) -> Iterator[tuple[str, tuple[Change, ...]]]:
    """Give zones whose clocks are changed in a year; one of those that are the same.

    :param every: look at every second zone only, or third, …
    """
    known = set()
    for zone in sorted(available_timezones() - {"localtime"})[::every]:
        found = changes(zone, year)
        key = found, _offset(ZoneInfo(zone), datetime(year, 1, 1, tzinfo=UTC))
        if found and key not in known:
            known.add(key)
            yield zone, found


def _offset(info: ZoneInfo, moment: datetime) -> timedelta:
    return moment.astimezone(info).utcoffset() or timedelta(0)
