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

"""Bounded waits of the API for Keystone and hosts, never in the last free thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
import threading
import time
from typing import TypeVar

from kongming import exception
from kongming.runtime import server_threads, threads
from kongming.runtime.server_threads import ServerThreads

T = TypeVar("T")

_LIMIT_MAX_S = 24 * 3600.0
# The most threads that may still run after their request has ended.
_LEFT_MAX = 32
_STEP_S = 0.5


class Waiting:
    """Runs work that may never end. Thread-safe."""

    def __init__(self, of_server: ServerThreads) -> None:
        self._threads = of_server
        self._left = threading.BoundedSemaphore(_LEFT_MAX)

    def wait_for(self, work: Callable[[], T], limit_s: float = _LIMIT_MAX_S) -> T:
        """Run some work in a thread of its own and return its result.

        :param limit_s: the time limit, unless the work has its own.
        :raises TimeoutError: if it takes longer; it continues in the background.
        :raises ThreadsBusy: if no thread would be left for other requests.
        """
        with self._threads.changed:
            if limit_s > server_threads.PATIENCE_S and self._threads.all_wait_long():
                raise _busy()
        with self._threads.wait() as began:
            return self._wait(self._begin(work), began, limit_s)

    def wait_until(self, is_met: Callable[[], bool], seconds: float) -> None:
        """Wait until a condition is met; at most so long, and only while threads are free."""
        ended = threading.Event()
        until = time.monotonic() + seconds

        def work() -> None:
            while not is_met() and (left := until - time.monotonic()) > 0:
                if ended.wait(min(_STEP_S, left)):
                    return

        try:
            self.wait_for(work, seconds + _STEP_S)
        except (TimeoutError, exception.ThreadsBusy):
            # The client gets the present state, and may wait again.
            pass
        finally:
            ended.set()

    def _wait(self, done: Future[T], began: float, limit_s: float) -> T:
        patience_s = server_threads.PATIENCE_S
        with self._threads.changed:
            while not done.done():
                age = time.monotonic() - began
                if age >= limit_s:
                    raise TimeoutError
                if self._threads.must_end(began):
                    raise _busy()
                until = patience_s if age < patience_s else limit_s
                self._threads.changed.wait(min(until, limit_s) - age)
        return done.result()

    def _begin(self, work: Callable[[], T]) -> Future[T]:
        if not self._left.acquire(blocking=False):
            raise _busy()
        done = threads.start(threads.with_request_context(work), "wait")
        done.add_done_callback(self._ended)
        return done

    def _ended(self, _: Future[T]) -> None:
        self._left.release()
        with self._threads.changed:
            self._threads.changed.notify_all()


def _busy() -> exception.ThreadsBusy:
    return exception.ThreadsBusy(
        "too many requests wait for Keystone, or for the plans of hosts: retry in a second"
    )
