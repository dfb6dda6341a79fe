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

"""Steps of this machine's clock: each is reported once, with its size and direction."""

from __future__ import annotations

from collections.abc import Callable
import logging
import time

LOG = logging.getLogger(__name__)

# NTP moves a clock by less without setting it.
_JUMP_S = 2.0


def since_boot() -> float:
    """Return the seconds since the machine was booted, including suspended time."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Steps:
    """The steps of the clock, by comparison with a monotonic one.

    :param wall: returns the time in seconds since the epoch.
    :param steady: returns monotonic seconds.
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
        """Return the seconds by which the clock was set since the last call, or 0."""
        offset = self._wall() - self._steady()
        moved, self._offset = offset - self._offset, offset
        return moved if abs(moved) > _JUMP_S else 0.0


class ClockWatch:
    """Warns when the clock was set."""

    def __init__(self, steps: Steps | None = None) -> None:
        self._steps = steps or Steps()

    def check(self) -> None:
        """Log if the clock was set since the last check."""
        moved = self._steps.take()
        if moved:
            LOG.warning(
                "The clock of this host was set %s by %.0f s: later dates than now are ignored, "
                "and no event is lost. Synchronize the clocks of all nodes (NTP)",
                "forward" if moved > 0 else "back",
                abs(moved),
            )
