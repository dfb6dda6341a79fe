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
"""Time windows: when a part of an allocation replaces the base.

All functions take the moment as a parameter, and none reads a clock. So a clock that was set, or a
host that slept, needs no special case.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import InitVar, dataclass
from datetime import datetime, timedelta
import functools
import re

from kongming import exception
from kongming.allocation import cron, timezones
from kongming.allocation.cpuset import shown
from kongming.allocation.schedule import Schedule

MIN_DURATION_S = 60
MAX_DURATION_S = 366 * 86_400
MAX_START = 256

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_START = re.compile(r"[0-9A-Za-z*,/# \t-]*")


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time that occurs repeatedly.

    New requests are checked. Stored ones may be read without checks (``checked=False``): rules
    become stricter, and another machine may know a zone that this one does not. Then
    :meth:`is_in_force` raises an error.

    :ivar name: of letters, digits, ``_``, ``.`` and ``-``.
    :ivar start: a cron expression of five fields, whose starts are those that
        :mod:`kongming.allocation.schedule` describes.
    :ivar duration_s: how long it is in force, in elapsed seconds, also if the wall clocks are
        changed meanwhile.
    :ivar timezone: the IANA time zone of ``start``.
    """

    name: str
    start: str
    duration_s: int
    timezone: str = "UTC"
    checked: InitVar[bool] = True

    def __post_init__(self, checked: bool) -> None:
        """Check the fields.

        :raises RequestInvalid: naming the field.
        """
        if checked:
            self.check()

    def check(self) -> None:
        """Refuse a window that may not be requested.

        :raises RequestInvalid: naming the field.
        """
        if not _NAME.fullmatch(self.name):
            raise exception.RequestInvalid(
                f"window name {shown(self.name)} is not of 1 to 63 letters, digits, '_', '.' and "
                "'-', beginning with a letter or digit"
            )
        if len(self.start) > MAX_START or not _START.fullmatch(self.start):
            raise exception.RequestInvalid(
                f"window {self.name}: start {shown(self.start)} is not of at most {MAX_START} "
                "letters, digits, blanks and * , - / #"
            )
        if not timezones.is_portable(self.timezone):
            raise exception.RequestInvalid(
                f"window {self.name}: {shown(self.timezone)} is not the name of an IANA time "
                "zone; name the zone itself, as in Europe/Berlin"
            )
        if not self._schedule().occurs:
            raise exception.RequestInvalid(
                f"window {self.name}: start {shown(self.start)} never occurs: the clocks of "
                f"{self.timezone} skip it"
            )

    def is_in_force(self, moment: datetime) -> bool:
        """Return whether it has begun and not ended at a moment, which has a time zone.

        :raises RequestInvalid: if that can't be determined; see the class.
        """
        return self._schedule().is_in_force(moment)

    def next_change(self, moment: datetime) -> datetime | None:
        """Return when it next begins or ends, which is after ``moment``.

        :return: None if never, or only in more than five years.
        :raises RequestInvalid: as :meth:`is_in_force`.
        """
        return self._schedule().next_change(moment)

    def _schedule(self) -> Schedule:
        if not MIN_DURATION_S <= self.duration_s <= MAX_DURATION_S:
            raise exception.RequestInvalid(
                f"window {self.name}: a duration of {self.duration_s} s is not from "
                f"{MIN_DURATION_S} to {MAX_DURATION_S} s"
            )
        try:
            return _schedule_of(self.start, self.duration_s, timezones.zone(self.timezone))
        except exception.RequestInvalid as error:
            raise exception.RequestInvalid(f"window {self.name}: {error}") from None


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which the same window is in force; ``window`` is None for the base."""

    begin: datetime
    end: datetime
    window: str | None


def in_force(windows: Iterable[Window], moment: datetime) -> Window | None:
    """Return the window in force: the last one that matches; None is the base."""
    found = [window for window in windows if window.is_in_force(moment)]
    return found[-1] if found else None


def next_change(windows: Iterable[Window], moment: datetime) -> datetime | None:
    """Return when any of them next begins or ends: then another one may be in force."""
    changes = [change for window in windows if (change := window.next_change(moment))]
    return min(changes, default=None)


def preview(windows: Iterable[Window], begin: datetime, end: datetime) -> Iterator[Span]:
    """Yield which window is in force from ``begin`` to ``end``, without gaps.

    A window begins or ends at most twice a minute, which bounds the spans.
    """
    windows = list(windows)
    since, now = begin, begin
    current = in_force(windows, begin)
    while now < end:
        now = min(next_change(windows, now) or end, end)
        following = in_force(windows, now)
        if now == end or following != current:
            yield Span(since, now, None if current is None else current.name)
            since, current = now, following


# The zone is a part of the key: after a change of the database it is another object.
@functools.lru_cache(maxsize=4096)
def _schedule_of(start: str, duration_s: int, zone: timezones.Zone) -> Schedule:
    return Schedule(cron.parse(start), zone, timedelta(seconds=duration_s))
