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
"""When time windows begin and end: then their instances get a pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
import threading

from kongming import exception
from kongming.allocation import timezones
from kongming.allocation.allocation import Allocation
from kongming.allocation.windows import Window

# How long an instance without a transition in sight is not searched again.
_DAY = timedelta(days=1)


def now() -> datetime:
    """Return the current time, by the wall clock."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Transition:
    """The next transition of an instance.

    :ivar mark: identifies the windows and the tz database; None if the next pass must search
        in any case.
    :ivar since: when it was searched for.
    :ivar at: None if there is none in sight.
    """

    mark: int | None
    since: datetime
    at: datetime | None

    def is_valid(self, mark: int, moment: datetime) -> bool:
        return mark == self.mark and self.since <= moment < (self.at or self.since + _DAY)


class WindowTimer:
    """The next window transition of each instance that has windows.

    Any thread may call any method.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: dict[str, _Transition] = {}
        # The earliest transition of all, or one before it.
        self._first: datetime | None = None
        self._last = now()
        self._updates = 0

    def note(self, instance_uuid: str, allocations: Iterable[Allocation | None]) -> datetime:
        """Note when an instance's desired or accepted allocation changes next.

        :return: the moment for which it was found; a pass that uses it misses no transition.
        """
        moment = now()
        windows = frozenset(
            each.window for allocation in allocations if allocation for each in allocation.windows
        )
        mark, current = hash((windows, self._updates)), self._next.get(instance_uuid)
        if current is not None and current.is_valid(mark, moment):
            return moment
        found = _find(windows, mark, moment)
        with self._lock:
            # A clock that was set back is noticed by this moment.
            self._last = max(self._last, moment)
            if not windows:
                self._next.pop(instance_uuid, None)
                return moment
            self._next[instance_uuid] = found
            if found.at is not None and (self._first is None or found.at < self._first):
                self._first = found.at
        return moment

    def due(self) -> list[str]:
        """Return the instances that need a pass now.

        These are all with windows if the clock was set back, or the tz database was updated. As
        long as nothing is due, the cost does not depend on the number of instances.
        """
        updated = timezones.refresh()
        with self._lock:
            # Not earlier: other threads may note a later moment while this one waits.
            moment = now()
            self._updates += updated
            every = updated or moment < self._last
            self._last = moment
            if not every and (self._first is None or moment < self._first):
                return []
            found = [
                instance_uuid
                for instance_uuid, each in self._next.items()
                if every or (each.at is not None and each.at <= moment)
            ]
            for instance_uuid in found:
                # The pass finds the next one.
                self._next[instance_uuid] = _Transition(None, moment, None)
            ahead = [each.at for each in self._next.values() if each.at is not None]
            self._first = min(ahead, default=None)
        return found


def _find(windows: Iterable[Window], mark: int, moment: datetime) -> _Transition:
    changes: list[datetime | None] = []
    known: int | None = mark
    for window in windows:
        try:
            changes.append(window.next_change(moment))
        except exception.RequestInvalid:
            # The pass refuses a window that can't be read here; it may be readable later.
            known = None
    return _Transition(known, moment, min(filter(None, changes), default=None))
