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

"""When the time windows of the instances begin and end: then they are looked at."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
import threading

from kongming.allocation import Allocation
from kongming.window import next_change


def now() -> datetime:
    """Give this moment, by the wall clock."""
    return datetime.now(UTC)


class Switches:
    """The next change of each instance that has windows. Any thread may call any method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: dict[str, datetime | None] = {}
        self._last = now()

    def note(self, instance_uuid: str, allocations: Iterable[Allocation | None]) -> None:
        """Note when what is asked for an instance, or in force on it, changes next."""
        moment = now()
        windows = [each.window for found in allocations if found for each in found.windows]
        change = next_change(windows, moment) if windows else None
        with self._lock:
            # Who looks for a clock that was set back must know of this moment.
            self._last = max(self._last, moment)
            if windows:
                self._next[instance_uuid] = change
            else:
                self._next.pop(instance_uuid, None)

    def due(self) -> list[str]:
        """Give the instances that are to be looked at now; all if the clock was set back."""
        moment = now()
        with self._lock:
            if not self._next:
                return []
            back = moment < self._last
            self._last = moment
            found = [
                instance_uuid
                for instance_uuid, change in self._next.items()
                if back or (change is not None and change <= moment)
            ]
            for instance_uuid in found:
                # The pass notes the one after that.
                self._next[instance_uuid] = None
        return found
