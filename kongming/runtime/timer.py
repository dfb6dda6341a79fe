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

"""When something that is done at an interval is due."""

from __future__ import annotations

import random
import time


class Timer:
    """The time of the next run: on each host, and each time, at another moment."""

    def __init__(self) -> None:
        self._first: float | None = None
        self._last = time.monotonic()
        self._factor = 1.0

    def expire_within(self, seconds: float) -> None:
        """Have the next run within some seconds, or earlier if it is due earlier."""
        at = time.monotonic() + random_between(0.0, seconds)
        self._first = at if self._first is None else min(at, self._first)

    def is_due(self, interval_s: float) -> bool:
        """Return whether the next run is due.

        :param interval_s: the seconds between two runs; 0 means never.
        """
        if self._first is not None:
            return time.monotonic() >= self._first
        return interval_s > 0 and time.monotonic() >= self._last + interval_s * self._factor

    def restart(self) -> None:
        """Count the interval from now on."""
        self._first = None
        self._last = time.monotonic()
        self._factor = random_between(0.8, 1.2)


def random_between(low: float, high: float) -> float:
    """Return a random number, so that a thousand hosts do not call at once."""
    return random.uniform(low, high)  # noqa: S311
