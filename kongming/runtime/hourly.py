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

"""What is told in the log once an hour, however often it happens."""

from __future__ import annotations

from collections.abc import Hashable
import threading
import time

HOUR_S = 3600.0
#: So much is told in an hour at most: senders and kinds can be made up.
MOST = 100


class Hourly:
    """Knows what was told within the hour. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._told: set[Hashable] = set()

    def is_news(self, what: Hashable) -> bool:
        """Return whether something is to be told now; then it is no news any more."""
        with self._lock:
            if time.monotonic() - self._began >= HOUR_S:
                self._began, self._told = time.monotonic(), set()
            news = what not in self._told and len(self._told) < MOST
            if news:
                self._told.add(what)
        return news
