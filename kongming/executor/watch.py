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

"""Polls for changes that cause no event: at each tick, and at an interval.

At each tick, at almost no cost: requests of an operator's tool, CPUs that went offline or online,
guests that got vCPUs or iothreads, time windows that began or ended, and a clock that was set. At
the interval: whether all guests still have their desired allocation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
import logging
import time

from kongming.allocation.cpuset import CpuSet
from kongming.executor.settings import Settings
from kongming.executor.store.store import Store
from kongming.executor.thread_watch import ThreadWatch
from kongming.executor.window_timer import WindowTimer
from kongming.runtime.clock import ClockWatch
from kongming.runtime.heartbeats import Heartbeats
from kongming.runtime.loop import Loop

LOG = logging.getLogger(__name__)

_TICK_S = 0.5
_DAY_S = 86_400.0
# A tick may wait for a locked store, and deletes many entries once a day.
_BEAT_WITHIN_S = 120.0


class Watch:
    """Wakes the executor for changes that cause no event.

    :param wake: called with instances that need a pass now.
    :param check: called with instances that need a pass when there is time.
    :param online_cpus: returns the CPUs that are online; None if unknown.
    :param on_offline: called with CPUs that went offline.
    :param windows: returns the instances whose time window has begun or ended.
    :param threads: returns the guests that have got or lost vCPUs or iothreads.
    :param settings: returns the settings in force.
    """

    def __init__(
        self,
        store: Store,
        *,
        wake: Callable[[Iterable[str]], None],
        check: Callable[[Iterable[str]], None],
        online_cpus: Callable[[], CpuSet | None],
        on_offline: Callable[[CpuSet], None],
        windows: WindowTimer,
        threads: ThreadWatch,
        settings: Callable[[], Settings],
        heartbeats: Heartbeats,
    ) -> None:
        self._store = store
        self._wake = wake
        self._check = check
        self._online_cpus = online_cpus
        self._on_offline = on_offline
        self._windows = windows
        self._threads = threads
        self._settings = settings
        self._online = online_cpus()
        self._clock = ClockWatch()
        self._checked = self._purged = time.monotonic() - _DAY_S
        self._loop = Loop(
            "watch",
            "the watch",
            lambda: self._tick(time.monotonic()),
            interval_s=_TICK_S,
            # Other users of the store report that it is unavailable.
            retry_max_s=_TICK_S,
            heartbeats=heartbeats,
            overdue_s=_BEAT_WITHIN_S,
        )

    def start(self) -> None:
        """Start polling; returns at once."""
        # The first check is made when libvirt becomes available.
        self._checked = time.monotonic()
        self._loop.start()

    def stop(self) -> None:
        """Stop polling."""
        self._loop.stop()

    def _tick(self, now: float) -> None:
        self._clock.check()
        self._compare_cpus()
        self._wake(self._windows.due())
        self._wake(self._threads.changed())
        settings = self._settings()
        interval = settings.check_interval_s
        if interval and now - self._checked >= interval:
            self._checked = now
            self._check(self._store.instances())
        if now - self._purged >= _DAY_S:
            self._store.purge(time.time() - settings.history_days * _DAY_S)
            self._purged = now
        self._wake(self._store.take_pending())

    def _compare_cpus(self) -> None:
        online, before = self._online_cpus(), self._online
        if online is None or online == before:
            # If unknown, the next known value is compared.
            return
        self._online = online
        if before is not None:
            LOG.info("Online CPUs changed from %s to %s", before, online)
            self._on_offline(CpuSet(before - online))
            self._wake(self._store.instances())
