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
"""Time zones, from the tz database of this machine.

Zones are kept once they have been read. :func:`refresh` notices files that were replaced since:
rules change, and an update of the package must take effect without a restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
import functools
import importlib.util
import io
import os
from pathlib import Path
import re
import struct
import zoneinfo

from kongming import exception
from kongming.allocation.cpuset import shown

MAX_NAME = 64

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*(/[A-Za-z0-9][A-Za-z0-9_+-]*)*", re.ASCII)
# Files beside the zones: they differ from machine to machine, or count leap seconds.
_NOT_PORTABLE = ("Factory", "localtime", "posixrules", "posix", "right")
_LAST_LINE = re.compile(rb"\n[!-~]*\n\Z")
_MAX_BYTES = 1 << 20

_SECOND = timedelta(seconds=1)
# No two changes of a zone are as close: Gaza's are seven days apart in some years.
_STEP = timedelta(days=3)

_Stamp = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A moment at which the clocks of a zone are changed.

    :ivar at: in UTC: the first second of the new time.
    :ivar before: the offset from UTC until then.
    :ivar after: the offset from then on.
    """

    at: datetime
    before: timedelta
    after: timedelta

    @property
    def shift(self) -> timedelta:
        """How far the clocks are put forward; negative if they are put back."""
        return self.after - self.before

    @property
    def begin(self) -> datetime:
        """The first wall-clock time that is skipped or occurs twice."""
        return self.at.replace(tzinfo=None) + min(self.before, self.after)

    @property
    def end(self) -> datetime:
        """The first wall-clock time after ``begin`` that occurs once."""
        return self.at.replace(tzinfo=None) + max(self.before, self.after)


class Zone:
    """A time zone: what its wall clocks show, and when they are changed."""

    def __init__(self, rules: tzinfo) -> None:
        self._rules = rules
        self._changes: dict[int, tuple[Change, ...]] = {}

    def wall(self, moment: datetime) -> datetime:
        """Return what the clocks show, without a zone; ``fold`` is 1 if it is the second time."""
        return moment.astimezone(self._rules).replace(tzinfo=None)

    def moment(self, wall: datetime) -> datetime:
        """Return when the clocks show a time that occurs once, in UTC."""
        return (wall - self._offset(wall)).replace(tzinfo=UTC)

    def change_at(self, wall: datetime) -> Change | None:
        """Return the change that skips a time or repeats it; None if it occurs once."""
        wall = wall.replace(fold=0)
        offsets = self._offset(wall), self._offset(wall.replace(fold=1))
        if offsets[0] == offsets[1]:
            return None
        return self._change_between(
            (wall - max(offsets)).replace(tzinfo=UTC), (wall - min(offsets)).replace(tzinfo=UTC)
        )

    def next_change(self, moment: datetime, until: datetime) -> Change | None:
        """Return the first change after a moment and before another one."""
        for year in range(moment.year, until.year + 1):
            for change in self._changes_of(year):
                if moment < change.at:
                    return change if change.at < until else None
        return None

    def _changes_of(self, year: int) -> tuple[Change, ...]:
        found = self._changes.get(year)
        if found is None:
            found = self._changes[year] = tuple(self._find_changes(year))
        return found

    def _find_changes(self, year: int) -> list[Change]:
        moment, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
        found = []
        while moment < end:
            following = min(moment + _STEP, end)
            if self._offset_at(moment) != self._offset_at(following):
                found.append(self._change_between(moment, following))
                following = found[-1].at
            moment = following
        return found

    def _change_between(self, low: datetime, high: datetime) -> Change:
        """Return the change after ``low`` and not after ``high``, whose offsets differ."""
        low, high = low.replace(microsecond=0), high.replace(microsecond=0)
        before = self._offset_at(low)
        while high - low > _SECOND:
            middle = low + (high - low) // (2 * _SECOND) * _SECOND
            if self._offset_at(middle) == before:
                low = middle
            else:
                high = middle
        return Change(high, before, self._offset_at(high))

    def _offset_at(self, moment: datetime) -> timedelta:
        return self._offset(moment.astimezone(self._rules))

    def _offset(self, local: datetime) -> timedelta:
        return self._rules.utcoffset(local) or timedelta(0)


def zone(name: str) -> Zone:
    """Return a zone of the tz database by its name.

    :raises RequestInvalid: if this machine has no such zone.
    """
    known = _zones.get(name)
    if known is None:
        known = _read(name)
        if known is None:
            raise exception.RequestInvalid(
                f"{shown(name)} is not an IANA time zone known to this machine; write it as in "
                "Europe/Berlin, or update tzdata"
            )
        _zones[name] = known
    return known[1]


def is_portable(name: str) -> bool:
    """Return whether a zone of this name is the same on each machine."""
    return len(name) <= MAX_NAME and name.split("/")[0] not in _NOT_PORTABLE


def refresh() -> bool:
    """Read zones again whose files were replaced; return whether there were any.

    It costs one ``stat`` for each zone in use. A file that is missing, or half written, changes
    nothing until it can be read.
    """
    changed = False
    for name, (stamp, _) in list(_zones.items()):
        if _stamp(name) in (None, stamp):
            continue
        fresh = _read(name)
        if fresh is not None:
            _zones[name] = fresh
            changed = True
    return changed


def sources() -> dict[str, str]:
    """Return where zones are searched, in this order, each with its version of the database."""
    folders = _folders(zoneinfo.TZPATH)
    return {str(each): _version(each) for each in folders if (each / "Etc" / "UTC").exists()}


_zones: dict[str, tuple[_Stamp, Zone]] = {}


@functools.lru_cache(maxsize=8)
def _folders(system: tuple[str, ...]) -> list[Path]:
    """Return where zones are searched: the system's folders, then Python's package."""
    package = importlib.util.find_spec("tzdata")
    inside = package.submodule_search_locations if package else None
    return [*map(Path, system), *(Path(folder, "zoneinfo") for folder in inside or ())]


@functools.lru_cache(maxsize=1024)
def _files(name: str, system: tuple[str, ...]) -> list[Path]:
    return [folder / name for folder in _folders(system)]


def _stamp(name: str) -> _Stamp | None:
    for file in _files(name, zoneinfo.TZPATH):
        try:
            return _stamp_of(file.stat())
        except OSError:
            continue
    return None


def _stamp_of(found: os.stat_result) -> _Stamp:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(name: str) -> tuple[_Stamp, Zone] | None:
    if not _NAME.fullmatch(name):
        return None
    for path in _files(name, zoneinfo.TZPATH):
        try:
            with path.open("rb") as file:
                stamp, written = _stamp_of(os.fstat(file.fileno())), file.read(_MAX_BYTES)
        except OSError:
            continue
        rules = _rules(name, written)
        return None if rules is None else (stamp, Zone(rules))
    return None


def _rules(name: str, written: bytes) -> tzinfo | None:
    # Python's reader does not return if the end of the last line is missing.
    if not written.startswith(b"TZif") or not _LAST_LINE.search(written):
        return None
    try:
        return zoneinfo.ZoneInfo.from_file(io.BytesIO(written + b"\n"), key=name)
    except (ValueError, IndexError, AssertionError, struct.error):
        return None


def _version(folder: Path) -> str:
    """Return the version of the database, as 2026a; "unknown" if the folder does not have it."""
    try:
        with (folder / "tzdata.zi").open(encoding="ascii", errors="replace") as file:
            words = file.readline(80).split()
    except OSError:
        return "unknown"
    return words[2] if words[:2] == ["#", "version"] else "unknown"
