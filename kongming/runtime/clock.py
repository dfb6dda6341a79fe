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

"""Whether this machine's clock was set: told once, with how far and which way."""

from __future__ import annotations

from collections.abc import Callable
import logging
import time

LOG = logging.getLogger(__name__)

# NTP moves a clock by less without setting it.
_JUMP_S = 2.0


def since_boot() -> float:
    """Return the seconds since the machine was started, those in which it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Steps:
    """Compares the time of day with a clock that nobody sets.

    :param wall: tells the time, in seconds since the epoch.
    :param steady: seconds that only grow.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = since_boot,
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._offset = wall() - steady()

    def take(self) -> float:
        """Return by how many seconds the clock was set since the last call; 0 if it was not."""
        offset = self._wall() - self._steady()
        moved, self._offset = offset - self._offset, offset
        return moved if abs(moved) > _JUMP_S else 0.0


class ClockWatch:
    """Tells when the clock was set."""

    def __init__(self, steps: Steps | None = None) -> None:
        self._steps = steps or Steps()

    def look(self) -> None:
        """Tell if the clock was set since the last look."""
        moved = self._steps.take()
        if moved:
            LOG.warning(
                "The clock of this host was set %s by %.0f s: later dates than now are ignored, "
                "and no event is lost. Synchronize the clocks of all nodes (NTP)",
                "forward" if moved > 0 else "back",
                abs(moved),
            )
