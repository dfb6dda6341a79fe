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

"""When something that comes again and again is due."""

from __future__ import annotations

from collections.abc import Callable
import random
import time


class Due:
    """When the next look comes: on each host, and each time, at another moment.

    :param interval: gives the seconds between two looks; 0 means never.
    """

    def __init__(self, interval: Callable[[], float]) -> None:
        self._interval = interval
        self._first: float | None = None
        self._last = time.monotonic()
        self._factor = 1.0

    def come_within(self, seconds: float) -> None:
        """Have the next look come soon, whatever the interval, and not later than it would."""
        at = time.monotonic() + anywhere(0.0, seconds)
        self._first = at if self._first is None else min(at, self._first)

    def has_come(self) -> bool:
        """Tell whether it is due now."""
        if self._first is not None:
            return time.monotonic() >= self._first
        interval = self._interval()
        return bool(interval) and time.monotonic() >= self._last + interval * self._factor

    def begin_anew(self) -> None:
        """Count the interval from now on."""
        self._first = None
        self._last = time.monotonic()
        self._factor = anywhere(0.8, 1.2)


def anywhere(low: float, high: float) -> float:
    """Give a number of this range: so that a thousand hosts do not ask at once."""
    return random.uniform(low, high)  # noqa: S311
