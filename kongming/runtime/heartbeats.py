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
"""Heartbeats of threads, for the watchdog of the service manager."""

from __future__ import annotations

from collections.abc import Callable
import threading
import time


class Heartbeats:
    """The last heartbeat of each thread. Any thread may call any method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, tuple[float, float]] = {}

    def expect(self, name: str, within_s: float) -> Callable[[], None]:
        """Expect heartbeats of a thread from now on; return the function that it has to call.

        :param within_s: the longest time from one heartbeat to the next.
        """

        def beat() -> None:
            with self._lock:
                self._last[name] = (time.monotonic(), within_s)

        beat()
        return beat

    def overdue(self) -> list[str]:
        """Return the names of threads whose heartbeat is overdue."""
        now = time.monotonic()
        with self._lock:
            return sorted(
                name for name, (last, within_s) in self._last.items() if now - last > within_s
            )
