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
"""When windows are in force that begin by a cron expression and last for a duration.

Starts are those of Debian's cron. Clocks are changed by daylight-saving time and by governments:

* An expression with ``*`` at the beginning of its minute or hour follows what the clocks show: a
  time that occurs twice is two starts, one that is skipped is none.
* Any other expression names fixed times. One that occurs twice is one start, the first. A skipped
  one comes right after the gap.
* A change by three hours or more forward, or by more than three back, corrects the date: then
  fixed times follow what the clocks show, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
import functools

from kongming.allocation.cron import Expression
from kongming.allocation.timezones import Change, Zone

#: How far ahead the end of a window is searched that begins again before it ends.
FAR = timedelta(days=5 * 365 + 2)

_MINUTE = timedelta(minutes=1)
_CORRECTION = timedelta(hours=3)
# A start that occurs at all occurs within 40 years, unless the clocks always skip it.
_NEVER = timedelta(days=41 * 366)
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_KEPT_FOR = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A time in which nothing begins or ends; it is long without ``until``."""

    in_force: bool
    since: datetime
    until: datetime | None

    def covers(self, moment: datetime) -> bool:
        return self.since <= moment < (self.until or self.since + _KEPT_FOR)


class Schedule:
    """Spans of time that begin by an expression in a zone, and have the same duration.

    All moments have a time zone; those that are returned are in UTC.

    No answer takes more steps than a fixed number, for any expression, zone and duration. A start
    is found within 41 years of months and as many changes of the clocks, mostly within one of
    each; the end of a window that begins again before it ends, within the months and changes until
    :data:`FAR`. The last answer is kept until something changes.
    """

    def __init__(self, expression: Expression, zone: Zone, duration: timedelta) -> None:
        self._expression = expression
        self._zone = zone
        self._duration = duration
        self._known: _Stretch | None = None

    def is_in_force(self, moment: datetime) -> bool:
        """Return whether it has begun and not ended at a moment."""
        moment, known = moment.astimezone(UTC), self._known
        if known is not None and known.covers(moment):
            return known.in_force
        start = self.start_after(moment - self._duration)
        return start is not None and start <= moment

    def next_change(self, moment: datetime) -> datetime | None:
        """Return when it next begins or ends: after ``moment``.

        :return: None if it never begins, or does not end within :data:`FAR`.
        """
        moment, known = moment.astimezone(UTC), self._known
        if known is None or not known.covers(moment):
            known = self._known = self._stretch_at(moment)
        return known.until

    @functools.cached_property
    def occurs(self) -> bool:
        """Whether it ever begins: the clocks may always skip it."""
        return self.start_after(_LONG_AGO) is not None

    def start_after(self, moment: datetime) -> datetime | None:
        """Return the first start after a moment; None if there is none."""
        wall = self._zone.wall(moment)
        repeated = self._zone.change_at(wall)
        if repeated is None:
            return self._first_start(_just_after(wall))
        if self._goes_by_fixed_times(repeated):
            # All of them occur while the clocks show these times for the first time.
            return self._first_start(repeated.end if wall.fold else _just_after(wall))
        found = self._expression.first_from(_just_after(wall))
        if not wall.fold:
            if found is not None and found < repeated.end:
                return _moment(found, repeated.before)
            found = self._expression.first_from(repeated.begin)
        if found is not None and found < repeated.end:
            return _moment(found, repeated.after)
        return self._first_start(repeated.end)

    def _first_start(self, wall: datetime) -> datetime | None:
        """Return the first start at or after a wall-clock time that occurs once, or first."""
        latest = wall + _NEVER
        while (found := self._expression.first_from(wall)) is not None and found < latest:
            change = self._zone.change_at(found)
            if change is None:
                return self._zone.moment(found)
            if change.shift < timedelta(0):
                return _moment(found, change.before)
            if self._goes_by_fixed_times(change):
                return change.at
            wall = change.end
        return None

    def _stretch_at(self, moment: datetime) -> _Stretch:
        start = self.start_after(moment - self._duration)
        if start is None or start > moment:
            return _Stretch(in_force=False, since=moment, until=start)
        return _Stretch(in_force=True, since=moment, until=self._end_of_run(start, moment + FAR))

    def _end_of_run(self, start: datetime, far: datetime) -> datetime | None:
        """Return when a span that begins at ``start`` ends without having begun again."""
        while (change := self._zone.next_change(start, far)) is not None:
            last = self._last_of_run(start, change.at)
            if last is not None and last + self._duration < change.at:
                return last + self._duration
            last = self._last_start_before(change, start)
            following = self.start_after(last)
            if following is None or following > last + self._duration:
                return last + self._duration
            start = following
        last = self._last_of_run(start, far)
        return None if last is None else last + self._duration

    def _last_of_run(self, start: datetime, until: datetime) -> datetime | None:
        """Return the first start, from one on, that ends before the next one.

        It is computed as if the clocks were not changed.

        :return: None if there is none before ``until``; the result may also be a little later.
        """
        wall = self._zone.wall(start)
        following = self._expression.first_from(_just_after(wall))
        if following is None or following - wall > self._duration:
            return start
        last = self._expression.last_of_run(
            following, self._duration // _MINUTE, wall + (until - start)
        )
        return None if last is None else start + (last - wall)

    def _last_start_before(self, change: Change, start: datetime) -> datetime:
        """Return the last start before a change of the clocks; ``start`` is one."""
        end = change.at.replace(tzinfo=None) + change.before - timedelta.resolution
        last = self._expression.last_until(end, _just_after(self._zone.wall(start)))
        return start if last is None else _moment(last, change.before)

    def _goes_by_fixed_times(self, change: Change) -> bool:
        if self._expression.has_wildcard:
            return False
        return -_CORRECTION <= change.shift < _CORRECTION


def _just_after(wall: datetime) -> datetime:
    return wall.replace(fold=0) + timedelta.resolution


def _moment(wall: datetime, offset: timedelta) -> datetime:
    return (wall - offset).replace(tzinfo=UTC)
