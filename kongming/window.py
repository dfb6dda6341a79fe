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

"""Time windows: when a part of an allocation holds instead of the base.

All that is asked is a moment; nothing here knows what time it is, so a clock
that was set, or a host that slept, changes nothing but the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
import functools
import re
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from kongming import exception
from kongming.cpuset import shown

MIN_DURATION_S = 60
MAX_DURATION_S = 366 * 86_400

_FIELDS = 5
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
# IANA's names alone: a zone directory also holds this machine's own zone (localtime), one that
# is none (Factory), and zones in which leap seconds count (right/).
_ZONE = re.compile(r"(?!Factory)[A-Z][A-Za-z0-9_+-]*(?:/[A-Z][A-Za-z0-9_+-]*)*", re.ASCII)
# A window that starts again before it ends may be in force for ever.
_CHAIN_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time that comes again and again.

    :ivar name: of letters, digits, ``_``, ``.`` and ``-``.
    :ivar start: a cron expression of five fields, as Debian's cron reads it:
        a start in an hour that daylight-saving time leaves out comes right
        after it, one in an hour that comes twice comes once.
    :ivar duration_s: how long it is in force, in seconds that pass, whatever
        the clocks on the wall do meanwhile.
    :ivar timezone: the IANA time zone of ``start``.
    """

    name: str
    start: str
    duration_s: int
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        """Refuse what can't be.

        :raises RequestInvalid: naming the field.
        """
        if not _NAME.fullmatch(self.name):
            raise exception.RequestInvalid(
                f"window name {shown(self.name)} is not of 1 to 63 letters, digits, '_', '.' and "
                "'-', beginning with a letter or digit"
            )
        if not MIN_DURATION_S <= self.duration_s <= MAX_DURATION_S:
            raise exception.RequestInvalid(
                f"window {self.name}: a duration of {self.duration_s} s is not from "
                f"{MIN_DURATION_S} to {MAX_DURATION_S} s"
            )
        _zone(self.name, self.timezone)
        if len(self.start.split()) != _FIELDS:
            raise exception.RequestInvalid(
                f"window {self.name}: start {shown(self.start)} is not a cron expression of five "
                "fields, as in '0 22 * * mon-fri'"
            )
        try:
            first = self._start_after(datetime(2000, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise exception.RequestInvalid(
                f"window {self.name}: start {shown(self.start)} is not a cron expression: {error}"
            ) from None
        if first is None:
            raise exception.RequestInvalid(
                f"window {self.name}: start {shown(self.start)} never comes"
            )

    def is_in_force(self, moment: datetime) -> bool:
        """Tell whether it has begun and not ended at ``moment``, which knows its time zone."""
        start = self._start_after(_before(moment, self._duration))
        return start is not None and start <= moment

    def next_change(self, moment: datetime) -> datetime | None:
        """Say when it next begins or ends; None if that is far away, or never."""
        if not self.is_in_force(moment):
            return self._start_after(moment)
        start = self._start_after(_before(moment, self._duration))
        for _ in range(_CHAIN_MAX):
            if start is None:
                return None
            end = start + self._duration
            following = self._start_after(start)
            if following is None or following > end:
                return end
            start = following
        return None

    @property
    def _duration(self) -> timedelta:
        return timedelta(seconds=self.duration_s)

    def _start_after(self, moment: datetime) -> datetime | None:
        """Give the first start after a moment, in UTC."""
        local = moment.astimezone(ZoneInfo(self.timezone))
        found = next(CronSim(self.start, local), None)
        return None if found is None else found.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which the same window is in force; ``window`` is None for the base."""

    begin: datetime
    end: datetime
    window: str | None


def in_force(windows: Iterable[Window], moment: datetime) -> Window | None:
    """Say which window is in force: the last one that matches; None is the base."""
    found = [window for window in windows if window.is_in_force(moment)]
    return found[-1] if found else None


def next_change(windows: Iterable[Window], moment: datetime) -> datetime | None:
    """Say when any of them next begins or ends: what is in force may change then."""
    changes = [change for window in windows if (change := window.next_change(moment))]
    return min(changes, default=None)


def preview(windows: Iterable[Window], begin: datetime, end: datetime) -> Iterator[Span]:
    """Give what is in force from ``begin`` to ``end``, without gaps."""
    windows = list(windows)
    since, now = begin, begin
    current = in_force(windows, begin)
    while now < end:
        now = min(next_change(windows, now) or end, end)
        following = in_force(windows, now)
        if now == end or following != current:
            yield Span(since, now, None if current is None else current.name)
            since, current = now, following


def _before(moment: datetime, duration: timedelta) -> datetime:
    """Go back by the time that passes, which is not what the clocks on the wall show."""
    return moment.astimezone(UTC) - duration


@functools.lru_cache(maxsize=64)
def _zone(name: str, timezone: str) -> ZoneInfo:
    if _ZONE.fullmatch(timezone):
        with contextlib.suppress(KeyError, OSError, ValueError):
            return ZoneInfo(timezone)
    raise exception.RequestInvalid(
        f"window {name}: {shown(timezone)} is no IANA time zone, as Europe/Berlin is one"
    )
