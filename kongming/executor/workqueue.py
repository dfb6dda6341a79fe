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

"""The work queue: which instances need a pass; each is processed by one worker at a time.

An instance that is added again while it waits is processed once; if it is added while a worker has
it, once more afterwards. A failed or contested instance pauses: only urgent work ends the pause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import heapq
import threading
import time

from kongming.runtime.backoff import Backoff


class WorkQueue:
    """Keys in the order of their arrival, never the same one twice at once.

    :param retry_max: returns the longest delay between retries, in seconds.
    """

    def __init__(self, retry_max: Callable[[], float]) -> None:
        self._retry_max = retry_max
        self._changed = threading.Condition()
        self._ready: dict[str, None] = {}
        self._worked_on: set[str] = set()
        self._again: dict[str, bool] = {}
        self._later: list[tuple[float, str]] = []
        self._paused: dict[str, float] = {}
        self._backoffs: dict[str, Backoff] = {}
        self._holders = 0
        self._closed = False

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Hand out nothing in this context: its additions become available together."""
        with self._changed:
            self._holders += 1
        try:
            yield
        finally:
            with self._changed:
                self._holders -= 1
                self._changed.notify_all()

    def add(self, key: str, *, urgent: bool = True) -> None:
        """Add a key; a worker gets it as soon as one is free.

        :param urgent: whether a pause of the key ends.
        """
        with self._changed:
            self._add(key, urgent=urgent)

    def get(self) -> str | None:
        """Wait for a key and take it; return None once the queue is closed."""
        with self._changed:
            while not self._closed:
                delay = self._bring_forward()
                if self._ready and not self._holders:
                    key = next(iter(self._ready))
                    del self._ready[key]
                    self._worked_on.add(key)
                    return key
                self._changed.wait(delay)
            return None

    def done(self, key: str, *, succeeded: bool, pause: float = 0.0) -> None:
        """Mark a key as processed; one that did not succeed is retried later.

        :param pause: for how many seconds the key is not processed again; additions meanwhile
            wait for its end.
        """
        with self._changed:
            self._worked_on.discard(key)
            if succeeded:
                self._backoffs.pop(key, None)
                self._pause(key, pause)
            else:
                pause = self._backoffs.setdefault(key, Backoff(self._retry_max())).next()
                self._pause(key, pause)
                self._add(key, urgent=False)
            if key in self._again:
                self._add(key, urgent=self._again.pop(key))

    def close(self) -> None:
        """Release all workers; keys that still wait are not processed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        """Return how many keys wait for a worker now."""
        with self._changed:
            return len(self._ready) + len(self._again)

    def _pause(self, key: str, seconds: float) -> None:
        if seconds:
            self._paused[key] = time.monotonic() + seconds

    def _add(self, key: str, *, urgent: bool) -> None:
        until = self._paused.get(key, 0.0)
        if key in self._worked_on:
            self._again[key] = urgent or self._again.get(key, False)
        elif not urgent and until > time.monotonic():
            if (until, key) not in self._later:
                heapq.heappush(self._later, (until, key))
                self._changed.notify()
        else:
            self._paused.pop(key, None)
            self._ready[key] = None
            self._changed.notify()

    def _bring_forward(self) -> float | None:
        """Add the keys that are due; return the seconds until the next one, if any."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._add(heapq.heappop(self._later)[1], urgent=False)
        return self._later[0][0] - now if self._later else None
