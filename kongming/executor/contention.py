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

"""Guests that have to be corrected repeatedly, because something else places them, too."""

from __future__ import annotations

from collections import deque
import logging
import time

LOG = logging.getLogger(__name__)

# After this many corrections within this time, a guest is not corrected for as long.
_TIMES = 5
_SECONDS = 60.0


class Contention:
    """Counts the corrections of each guest."""

    def __init__(self) -> None:
        self._corrections: dict[str, deque[float]] = {}

    def add_correction(self, instance_uuid: str) -> float:
        """Count a correction; return for how many seconds to leave the guest alone."""
        now = time.monotonic()
        self._corrections = {
            each: times for each, times in self._corrections.items() if now - times[-1] < _SECONDS
        }
        times = self._corrections.setdefault(instance_uuid, deque(maxlen=_TIMES))
        times.append(now)
        if len(times) < _TIMES or now - times[0] >= _SECONDS:
            return 0.0
        del self._corrections[instance_uuid]
        LOG.warning(
            "Instance %s: corrected %d times within %d s, not corrected for the next %d s: find "
            "out what else places it",
            instance_uuid,
            _TIMES,
            _SECONDS,
            _SECONDS,
        )
        return _SECONDS
