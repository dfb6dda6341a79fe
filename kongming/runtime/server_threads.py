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

"""The threads of a WSGI server: which of them wait for others, so that one is always free.

A WSGI server has a few threads in each process. If all of them wait, for a Keystone or a
database that is silent, for rows that others have locked, for a host that hangs, nobody else
is answered, not even ``/healthcheck``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import threading
import time

#: Who waits on the last thread gives it back after so many seconds.
PATIENCE_S = 0.25


class ServerThreads:
    """Knows the waits that are under way. Any thread may call it.

    :param number: how many threads each process of the server has.
    :ivar changed: held for each method but :meth:`wait`, and notified when a wait ends.
    """

    def __init__(self, number: int) -> None:
        self._most = max(1, number - 1)
        self.changed = threading.Condition()
        # When each began to wait, the latest last.
        self._waits: list[float] = []

    @contextmanager
    def wait(self) -> Iterator[float]:
        """Note a wait; yields when it began, by which it is known."""
        with self.changed:
            began = time.monotonic()
            self._waits.append(began)
        try:
            yield began
        finally:
            with self.changed:
                self._waits.remove(began)
                self.changed.notify_all()

    def all_wait_long(self) -> bool:
        """Tell whether all threads but the last have waited for too long for that one to wait."""
        now = time.monotonic()
        return sum(now - began >= PATIENCE_S for began in self._waits) >= self._most

    def must_end(self, began: float) -> bool:
        """Tell whether a wait has the last thread, and has had it for long enough."""
        is_last = len(self._waits) > self._most and self._waits[-1] == began
        return is_last and time.monotonic() - began >= PATIENCE_S
