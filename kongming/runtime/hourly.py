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

"""Log lines that are written once an hour, however often their cause occurs."""

from __future__ import annotations

from collections.abc import Hashable
import threading
import time

HOUR_S = 3600.0
#: The most keys in an hour: senders could make up any number.
MOST = 100


class Hourly:
    """The keys that were logged within the hour. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._logged: set[Hashable] = set()

    def should_log(self, key: Hashable) -> bool:
        """Return whether to log something now, and note that it is logged."""
        with self._lock:
            if time.monotonic() - self._began >= HOUR_S:
                self._began, self._logged = time.monotonic(), set()
            is_first = key not in self._logged and len(self._logged) < MOST
            if is_first:
                self._logged.add(key)
        return is_first
