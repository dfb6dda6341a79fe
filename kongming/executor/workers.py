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

"""The workers: as many as get on with their work as there are to be.

A worker that waits for libvirt can't be interrupted. So one that is held up is not waited
for: another takes its place, and it ends when it comes back.
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

# A call that takes longer holds its worker up.
_HELD_UP_S = 1.0
_LOOK_S = 0.25
# To keep what came of a look may take the store's patience, several times.
_SILENT_S = 60.0
# Each has a connection to libvirt, which takes a limited number of them.
_MOST = 64


class Workers:
    """Threads that work on the queue's keys.

    :param count: how many are to get on with their work.
    :param work: works on one key and gives it back to the queue.
    :param on_hung: called once with each call that has taken longer than it may.
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
        self._told: set[Call] = set()
        self._number = 0
        self._supervisor = Loop(
            "worker-supervisor",
            "supervising the workers",
            self._look,
            interval_s=_LOOK_S,
            retry_max_s=_LOOK_S,
            heartbeats=heartbeats,
            overdue_s=_SILENT_S,
        )

    def start(self) -> None:
        """Begin to work; returns at once."""
        self._fill_up()
        self._supervisor.start()

    def stop(self) -> None:
        """Start no more of them; those that there are end with the queue."""
        self._supervisor.stop()

    def join(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds until all have ended; tell whether they have."""
        deadline = time.monotonic() + timeout
        with self._lock:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    @property
    def held_up(self) -> int:
        """How many wait for a call that takes long."""
        return len(self._held_up)

    def _look(self) -> None:
        old = self._calls.older_than(_HELD_UP_S)
        with self._lock:
            self._held_up = frozenset(
                call.thread_id for call in old if call.thread_id in self._threads
            )
        self._fill_up()
        hung = {call for call in old if call.age() > call.patience_s}
        for call in hung - self._told:
            self._on_hung(call)
        self._told = hung

    def _fill_up(self) -> None:
        with self._lock:
            self._threads = {
                ident: thread for ident, thread in self._threads.items() if thread.is_alive()
            }
            missing = self._count - (len(self._threads) - len(self._held_up))
            for _ in range(min(missing, _MOST - len(self._threads))):
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
        """Tell whether there are enough without this thread; then it is none of them any more."""
        me = threading.get_ident()
        with self._lock:
            # Called between two calls: this one is not held up, whatever was seen last.
            self._held_up -= {me}
            enough = len(self._threads) - len(self._held_up) > self._count
            if enough:
                self._threads.pop(me, None)
        return enough
