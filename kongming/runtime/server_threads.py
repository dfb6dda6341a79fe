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

"""The threads of a WSGI server that wait for other services; one of them is kept free.

A WSGI server has a few threads in each process. If all of them wait, for an unresponsive Keystone
or database, for locked rows, or for a host that hangs, no other request is answered, not even
``/healthcheck``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import threading
import time

#: The longest wait of the last thread, in seconds.
PATIENCE_S = 0.25


class ServerThreads:
    """The current waits. Any thread may call it.

    :param number: the threads of each process of the server.
    :ivar changed: to be held for each method but :meth:`wait`; notified when a wait ends.
    """

    def __init__(self, number: int) -> None:
        self._most = max(1, number - 1)
        self.changed = threading.Condition()
        # The starts of all waits, the latest last.
        self._waits: list[float] = []

    @contextmanager
    def wait(self) -> Iterator[float]:
        """Note a wait; yield its start, which identifies it."""
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
        """Return whether all threads but one have waited so long that this one may not wait."""
        now = time.monotonic()
        return sum(now - began >= PATIENCE_S for began in self._waits) >= self._most

    def must_end(self, began: float) -> bool:
        """Return whether a wait occupies the last thread, and has lasted too long for that."""
        is_last = len(self._waits) > self._most and self._waits[-1] == began
        return is_last and time.monotonic() - began >= PATIENCE_S
