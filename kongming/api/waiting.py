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

"""Waits of the API for other services: bounded, and never on the last thread of the server.

A WSGI server has a few threads in each process. If all of them wait, for a Keystone that is
silent or for a host that hangs, nobody else is answered, not even ``/healthcheck``.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
import threading
import time
from typing import Any, TypeVar

from oslo_context import context as oslo_context

from kongming.api.errors import Busy

T = TypeVar("T")

#: Who waits on the last thread gives it back after so many seconds.
PATIENCE_S = 0.25
_LIMIT_MAX_S = 24 * 3600.0
# So many threads that nobody waits for any more may still be under way.
_LEFT_MAX = 32


class Waiting:
    """Knows the requests that wait. Any thread may call it.

    :param threads: how many threads each process of the server has.
    """

    def __init__(self, threads: int) -> None:
        self._most = max(1, threads - 1)
        self._changed = threading.Condition()
        # When each began to wait, the latest last.
        self._waits: list[float] = []
        self._left = threading.BoundedSemaphore(_LEFT_MAX)

    def wait_for(self, work: Callable[[], T], limit_s: float = _LIMIT_MAX_S) -> T:
        """Do some work in a thread of its own and return what comes of it.

        :param limit_s: how long that may take, unless it has a limit of its own.
        :raises TimeoutError: if it takes longer; it goes on, and nobody waits for it.
        :raises Busy: if no thread would be left for others.
        """
        began = time.monotonic()
        with self._changed:
            slow = [each for each in self._waits if began - each >= PATIENCE_S]
            if limit_s > PATIENCE_S and len(slow) >= self._most:
                raise _busy()
            self._waits.append(began)
        try:
            return self._wait(self._begin(work), began, limit_s)
        finally:
            with self._changed:
                self._waits.remove(began)
                self._changed.notify_all()

    def _wait(self, done: Future[T], began: float, limit_s: float) -> T:
        with self._changed:
            while not done.done():
                age = time.monotonic() - began
                if age >= limit_s:
                    raise TimeoutError
                is_last = len(self._waits) > self._most and self._waits[-1] == began
                if age >= PATIENCE_S and is_last:
                    raise _busy()
                until = PATIENCE_S if age < PATIENCE_S else limit_s
                self._changed.wait(min(until, limit_s) - age)
        return done.result()

    def _begin(self, work: Callable[[], T]) -> Future[T]:
        if not self._left.acquire(blocking=False):
            raise _busy()
        done: Future[T] = Future()
        asking: Any = oslo_context.get_current()

        def run() -> None:
            if asking is not None:
                asking.update_store()
            try:
                done.set_result(work())
            except BaseException as error:  # noqa: BLE001
                done.set_exception(error)
            self._left.release()
            with self._changed:
                self._changed.notify_all()

        threading.Thread(target=run, name="wait", daemon=True).start()
        return done


def _busy() -> Busy:
    return Busy(
        "too many requests wait for Keystone, or for hosts that are asked for a plan: try again "
        "in a second"
    )
