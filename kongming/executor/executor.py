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

"""The executor of one host: triggers tell it what is wanted, workers do it.

What a trigger tells is on disk before the call returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
import logging
from pathlib import Path
from typing import Any

from kongming import exception
from kongming.allocation.allocation import Allocation
from kongming.allocation.request import Request, Source
from kongming.executor import lock
from kongming.executor.departures import Departures
from kongming.executor.outcomes import log_refusal
from kongming.executor.placing import dry_run
from kongming.executor.placing.claims import Claims
from kongming.executor.placing.moves import Moves
from kongming.executor.placing.placer import Placer
from kongming.executor.reconciler import Reconciler
from kongming.executor.statistics import Statistics
from kongming.executor.store.record import Record
from kongming.executor.store.residence import Hint
from kongming.executor.store.store import Store
from kongming.executor.thread_watch import ThreadWatch
from kongming.executor.turns import UNCLAIMED, Turns
from kongming.executor.unclaimed import Unclaimed
from kongming.executor.watch import Watch
from kongming.executor.window_timer import WindowTimer
from kongming.executor.workers import Workers
from kongming.executor.workqueue import WorkQueue
from kongming.host import snapshot
from kongming.host.rules import Rules
from kongming.hypervisor.connection import Keeper
from kongming.hypervisor.hypervisor import Hypervisor
from kongming.hypervisor.opener import Opener
from kongming.hypervisor.pool import Pool
from kongming.runtime.heartbeats import Heartbeats

LOG = logging.getLogger(__name__)

# For connections to be closed in; a libvirt that answers takes milliseconds.
_CLOSE_TIMEOUT_S = 2.0


class Executor:
    """All that decides and does on one host.

    :param host: the name of this host.
    :param state_path: directory of the store; made if need be.
    :param workers: number of instances worked on at once.
    :param rules: gives the operator's rules that are in force.
    :param retry_max: gives the longest delay between attempts, in seconds.
    :param check_interval: gives the seconds between two checks of all guests.
    :param history_days: gives for how many days the history is kept.
    :param heartbeats: where the threads that are to get on say so.
    :param on_connect: called each time libvirt has begun to answer.
    :param on_pass: called with an instance after each look at it.
    :param on_stranger: called with an instance that nothing is known of when
        its guest starts, goes on or stops. It may not block.
    :param on_doubt: called with an instance of which Nova is to be asked where it is and
        what it has.
    :ivar statistics: what has been done since the start.
    :ivar visibility: what of the host and its guests can't be read or observed.
    """

    def __init__(
        self,
        *,
        host: str,
        state_path: Path,
        connection_uri: str,
        keepalive: tuple[int, int],
        workers: int,
        rules: Callable[[], Rules],
        retry_max: Callable[[], float],
        check_interval: Callable[[], float],
        history_days: Callable[[], int],
        heartbeats: Heartbeats,
        on_connect: Callable[[], None],
        on_pass: Callable[[str], None] = lambda _instance_uuid: None,
        on_stranger: Callable[[str], None] = lambda _instance_uuid: None,
        on_doubt: Callable[[str], object] = lambda _instance_uuid: None,
    ) -> None:
        self._lock = lock.take(state_path)
        self._store = Store(state_path)
        self._queue = WorkQueue(retry_max)
        opener = Opener.of(connection_uri, keepalive)
        self._pool = Pool(opener.open)
        self._hypervisor = Hypervisor(
            connection_uri,
            self._lend,
            on_lifecycle=self._happened,
            on_change=self._changed,
            store=lambda: self._store.identity,
        )
        self._keeper = Keeper(
            connection_uri,
            opener.open,
            self._hypervisor.events,
            on_subscribed=self._hypervisor.invalidate,
            on_connect=self._connected,
            heartbeats=heartbeats,
        )
        self.visibility = self._hypervisor.visibility
        self._on_connect = on_connect
        self._on_stranger = on_stranger
        self.statistics = Statistics()
        claims = Claims(self._hypervisor.occupants, lambda other: moves.of(other))
        self._placer = placer = Placer(rules, claims, self._hypervisor.topology)
        moves = Moves(self._store, self._hypervisor, placer)
        windows, threads = WindowTimer(), ThreadWatch()
        reconciler = Reconciler(
            self._store,
            self._hypervisor,
            placer,
            self.statistics,
            windows,
            threads,
            Departures(host, self._store, on_doubt),
            wake=self._wake,
        )
        self._unclaimed = Unclaimed(self._store, self._hypervisor, on_doubt)
        turns = Turns(self._store, self._queue, reconciler, self._unclaimed, on_pass)
        self._watch = Watch(
            self._store,
            wake=self._wake,
            check=partial(self._wake, urgent=False),
            online_cpus=self._hypervisor.online_cpus,
            on_offline=self._hypervisor.lost_cpus.went_offline,
            windows=windows,
            threads=threads,
            interval=check_interval,
            keep_days=history_days,
            heartbeats=heartbeats,
        )
        self._workers = Workers(
            workers,
            self._queue,
            self._hypervisor.calls,
            work=turns.work,
            on_hung=turns.hung,
            heartbeats=heartbeats,
        )

    def start(self) -> None:
        """Begin to work; returns at once, whether libvirt answers or not."""
        self._workers.start()
        self._watch.start()
        self._keeper.start()

    def stop(self, timeout: float) -> None:
        """Finish what has begun, for at most ``timeout`` seconds.

        What has not begun is on disk and is done after the next start.
        """
        self._watch.stop()
        self._workers.stop()
        self._queue.close()
        ended = self._workers.join(timeout)
        self._keeper.stop()
        self._pool.close(_CLOSE_TIMEOUT_S)
        if ended:
            self._store.close()
        self._lock.close()

    def together(self) -> AbstractContextManager[None]:
        """Have what is asked in a context judged together: nothing is looked at before its end."""
        return self._queue.holding()

    def ask(self, instance_uuid: str, request: Request) -> bool:
        """Want what a request says from now on; one that can't be read is kept, too.

        :returns: whether something else is wanted now.
        :raises StoreUnavailable: if that can't be kept.
        """
        refusal = request.asked if isinstance(request.asked, exception.Refused) else None
        if not refusal and not request.asked and not self._store.holds(instance_uuid):
            if self._unclaimed.unrequested(instance_uuid):
                self._queue.add(instance_uuid)
            return False
        self._unclaimed.requested(instance_uuid)
        if changed := self._store.ask(instance_uuid, request):
            LOG.debug("Instance %s: requested %s", instance_uuid, request.asked)
            if refusal is not None:
                self.statistics.refused(refusal)
                log_refusal(instance_uuid, refusal)
        self._queue.add(instance_uuid)
        return changed

    def withdraw(self, instance_uuid: str, source: Source, asked_by: str) -> bool:
        """Take back what a source asked; give whether it had asked anything.

        :raises StoreUnavailable: if that can't be kept.
        """
        withdrawn = self._store.withdraw(instance_uuid, source, asked_by)
        if withdrawn:
            self._queue.add(instance_uuid)
        return withdrawn

    def withdraw_all(self, source: Source, asked_by: str) -> None:
        """Take back all that a source asked: nobody speaks for it here any more.

        :raises StoreUnavailable: if that can't be kept.
        """
        for instance_uuid in self._store.asked_by(source):
            LOG.info("Instance %s: the request from %s is withdrawn", instance_uuid, source)
            self.withdraw(instance_uuid, source, asked_by)

    def asked_by(self, source: Source) -> dict[str, tuple[int, Record]]:
        """Give what a source asks: generation and record of each instance.

        :raises StoreUnavailable: if that can't be read.
        """
        return self._store.asked_by(source)

    def returning(self) -> set[str]:
        """Give the instances that are still to be back at their baseline.

        :raises StoreUnavailable: if that can't be read.
        """
        return self._store.returning()

    def guests(self) -> list[str]:
        """Give the instances that run on this host.

        :raises HypervisorUnavailable: if libvirt does not answer.
        """
        return [guest.instance_uuid for guest in self._hypervisor.occupants() if guest.nova]

    def view(self, rules: Rules) -> dict[str, Any]:
        """Give what the host looks like, as JSON; see :mod:`kongming.host.snapshot`.

        :raises HypervisorUnavailable: if libvirt does not answer.
        :raises Failed: if it gives an error.
        """
        return snapshot.to_json(self._hypervisor.topology(), self._hypervisor.occupants(), rules)

    def plan(self, instance_uuid: str, allocation: Allocation) -> dry_run.DryRun:
        """Say what would be done to a guest, and do nothing.

        :raises Refused: if it would be refused.
        :raises GuestAbsent: if there is no such guest now.
        :raises HypervisorUnavailable: if libvirt does not answer.
        """
        with self._hypervisor.guest(instance_uuid) as guest:
            return dry_run.look(self._placer, guest, instance_uuid, allocation)

    def locate(self, instance_uuid: str, hint: Hint) -> None:
        """Take what Nova says of where an instance is; what becomes of it libvirt decides.

        :raises StoreUnavailable: if that can't be kept.
        """
        if self._store.holds(instance_uuid) and self._store.hints.keep(instance_uuid, hint):
            self._queue.add(instance_uuid)

    def forget_hints(self) -> None:
        """Forget where Nova said that instances are: it is not asked here any more.

        :raises StoreUnavailable: if that can't be kept.
        """
        self._store.hints.clear()

    def let_go(self, instance_uuid: str) -> None:
        """Forget an instance that is no longer on this host.

        :raises StoreUnavailable: if that can't be kept.
        """
        known = self._store.holds(instance_uuid)
        if known and self._store.forget(instance_uuid, "has left this host"):
            LOG.info("Instance %s: has left this host, forgotten", instance_uuid)

    def holds(self, instance_uuid: str) -> bool:
        """Tell whether anything is known of an instance; costs nothing."""
        return self._store.holds(instance_uuid)

    @property
    def held(self) -> frozenset[str]:
        """The instances that anything is known of."""
        return self._store.held()

    def check_all(self) -> None:
        """Have all instances looked at, as after a change of the rules."""
        self._wake(self._store.held())

    @property
    def connected(self) -> bool:
        """Tell whether libvirt answers, as far as is known."""
        return self._keeper.connected

    @property
    def waiting(self) -> int:
        """Count the instances that wait for a worker now."""
        return len(self._queue)

    def records(self) -> list[Record]:
        """Return all that is known of each instance.

        :raises StoreUnavailable: if that can't be read.
        """
        return self._store.records()

    @property
    def held_up(self) -> int:
        """Count the workers that wait for a call to libvirt that takes long."""
        return self._workers.held_up

    @contextmanager
    def _lend(self) -> Iterator[Any]:
        # To open a connection to a libvirt that hangs takes its time.
        if not self._keeper.connected:
            raise exception.HypervisorUnavailable("there is no connection to libvirt")
        busy = None
        with ExitStack() as stack:
            try:
                connection = stack.enter_context(self._pool.lend())
            except exception.HypervisorUnavailable as error:
                busy = exception.HypervisorBusy(str(error))
            else:
                yield connection
        if busy is not None:
            self._keeper.warn(busy)
            raise busy

    def _connected(self) -> None:
        held = self._store.held()
        if held:
            LOG.info("Checking all %d instances with a request", len(held))
        self._unclaimed.happened()
        self._wake([*held, UNCLAIMED])
        self._on_connect()

    def _happened(self, instance_uuid: str) -> None:
        self._unclaimed.happened(instance_uuid)
        self._queue.add(instance_uuid)
        if not self._store.holds(instance_uuid):
            self._on_stranger(instance_uuid)

    def _changed(self, instance_uuid: str) -> None:
        # Not urgent: who changes a guest all the time must not keep us busy.
        if self._store.holds(instance_uuid):
            self._queue.add(instance_uuid, urgent=False)

    def _wake(self, instance_uuids: Iterable[str], *, urgent: bool = True) -> None:
        for instance_uuid in instance_uuids:
            self._queue.add(instance_uuid, urgent=urgent)
