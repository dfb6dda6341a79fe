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

"""The workers: a fixed number of threads that make progress.

A worker that waits for libvirt can't be interrupted. So another one replaces it, and it ends once
its call returns.
"""

from __future__ import annotations

from collections.abc import Callable
import logging
import threading
import time

from kongming.executor.workqueue import WorkQueue
from kongming.hypervisor.calls import Call, Calls
from kongming.runtime.heartbeats import Heartbeats
from kongming.runtime.loop import Loop

LOG = logging.getLogger(__name__)

# A call that takes longer blocks its worker.
_HELD_UP_S = 1.0
_CHECK_S = 0.25
# Storing an outcome may take the store's time-out, several times.
_BEAT_WITHIN_S = 60.0
# Each has a connection to libvirt, which accepts a limited number.
_MAX = 64


class Workers:
    """Threads that process the keys of the queue.

    :param count: how many of them make progress.
    :param work: processes one key, and marks it as done in the queue.
    :param on_hung: called once with each call that has exceeded its time limit.
    """

    def __init__(
        self,
        count: int,
        queue: WorkQueue,
        calls: Calls,
        *,
        work: Callable[[str], None],
        on_hung: Callable[[Call], None],
        heartbeats: Heartbeats,
    ) -> None:
        self._count = count
        self._queue = queue
        self._calls = calls
        self._work = work
        self._on_hung = on_hung
        self._lock = threading.Lock()
        self._threads: dict[int, threading.Thread] = {}
        self._held_up: frozenset[int] = frozenset()
        self._reported: set[Call] = set()
        self._number = 0
        self._supervisor = Loop(
            "worker-supervisor",
            "supervising the workers",
            self._check,
            interval_s=_CHECK_S,
            retry_max_s=_CHECK_S,
            heartbeats=heartbeats,
            overdue_s=_BEAT_WITHIN_S,
        )

    def start(self) -> None:
        """Start to work; returns at once."""
        self._fill_up()
        self._supervisor.start()

    def stop(self) -> None:
        """Start no more workers; those that run end with the queue."""
        self._supervisor.stop()

    def join(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds for all workers; return whether they have ended."""
        deadline = time.monotonic() + timeout
        with self._lock:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    @property
    def held_up(self) -> int:
        """How many workers wait for a slow call."""
        return len(self._held_up)

    def _check(self) -> None:
        old = self._calls.older_than(_HELD_UP_S)
        with self._lock:
            self._held_up = frozenset(
                call.thread_id for call in old if call.thread_id in self._threads
            )
        self._fill_up()
        hung = {call for call in old if call.age() > call.patience_s}
        for call in hung - self._reported:
            self._on_hung(call)
        self._reported = hung

    def _fill_up(self) -> None:
        with self._lock:
            self._threads = {
                ident: thread for ident, thread in self._threads.items() if thread.is_alive()
            }
            missing = self._count - (len(self._threads) - len(self._held_up))
            for _ in range(min(missing, _MAX - len(self._threads))):
                self._number += 1
                thread = threading.Thread(
                    target=self._run, name=f"worker-{self._number}", daemon=True
                )
                thread.start()
                self._threads[thread.ident or 0] = thread

    def _run(self) -> None:
        while not self._is_superfluous() and (key := self._queue.get()) is not None:
            self._work(key)

    def _is_superfluous(self) -> bool:
        """Return whether there are enough workers without this thread; if so, remove it."""
        me = threading.get_ident()
        with self._lock:
            # This thread is between two calls: it is not held up any more.
            self._held_up -= {me}
            enough = len(self._threads) - len(self._held_up) > self._count
            if enough:
                self._threads.pop(me, None)
        return enough
