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

"""The executor of one host: triggers store requests, and workers carry them out.

A request is on disk before the trigger's call returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial
import logging
from pathlib import Path
from typing import Any

from kongming import exception
from kongming.allocation.allocation import Allocation
from kongming.allocation.request import Request, Source
from kongming.executor import lock
from kongming.executor.connections import Connections
from kongming.executor.departures import Departures
from kongming.executor.outcomes import log_refusal
from kongming.executor.pass_runner import UNCLAIMED, PassRunner
from kongming.executor.placing import dry_run
from kongming.executor.placing.claims import Claims
from kongming.executor.placing.moves import Moves
from kongming.executor.placing.placer import Placer
from kongming.executor.reconciler import Reconciler
from kongming.executor.settings import Settings
from kongming.executor.statistics import Statistics
from kongming.executor.store.record import Record
from kongming.executor.store.residence import Hint
from kongming.executor.store.store import Store
from kongming.executor.thread_watch import ThreadWatch
from kongming.executor.unclaimed import Unclaimed
from kongming.executor.watch import Watch
from kongming.executor.window_timer import WindowTimer
from kongming.executor.workers import Workers
from kongming.executor.workqueue import WorkQueue
from kongming.host import snapshot
from kongming.runtime.heartbeats import Heartbeats

LOG = logging.getLogger(__name__)


class Executor:
    """Everything that decides and acts on one host.

    :param host: the name of this host.
    :param state_path: directory of the store; created if necessary.
    :param workers: how many instances are processed at once.
    :param heartbeats: where threads report that they make progress.
    :param on_connect: called each time libvirt has become available.
    :param on_pass: called with an instance after each pass.
    :param on_unknown_guest: called with an instance without a record when its guest starts,
        resumes or stops. It must not block.
    :param request_lookup: called with an instance whose location and metadata Nova must be
        asked for.
    :ivar settings: those in force; they may be replaced at any time.
    :ivar statistics: what has been done since the start.
    :ivar visibility: what can't be read or observed of the host and its guests.
    """

    def __init__(
        self,
        *,
        host: str,
        state_path: Path,
        connection_uri: str,
        keepalive: tuple[int, int],
        workers: int,
        settings: Settings,
        heartbeats: Heartbeats,
        on_connect: Callable[[], None],
        on_pass: Callable[[str], None] = lambda _instance_uuid: None,
        on_unknown_guest: Callable[[str], None] = lambda _instance_uuid: None,
        request_lookup: Callable[[str], object] = lambda _instance_uuid: None,
    ) -> None:
        self._lock = lock.acquire(state_path)
        self._store = Store(state_path)
        self.settings = settings
        self._queue = WorkQueue(lambda: self.settings.retry_max_s)
        self._connections = Connections(
            connection_uri,
            keepalive,
            on_lifecycle=self._on_guest_event,
            on_change=self._on_guest_change,
            on_connect=self._on_connected,
            store=lambda: self._store.identity,
            heartbeats=heartbeats,
        )
        self._hypervisor = self._connections.hypervisor
        self.visibility = self._hypervisor.visibility
        self._on_connect = on_connect
        self._on_unknown_guest = on_unknown_guest
        self.statistics = Statistics()
        claims = Claims(self._hypervisor.occupants, lambda other: moves.of(other))
        self._placer = placer = Placer(
            lambda: self.settings.rules, claims, self._hypervisor.topology
        )
        moves = Moves(self._store, self._hypervisor, placer)
        windows, threads = WindowTimer(), ThreadWatch()
        reconciler = Reconciler(
            self._store,
            self._hypervisor,
            placer,
            self.statistics,
            windows,
            threads,
            Departures(host, self._store, request_lookup),
            wake=self._wake,
        )
        self._unclaimed = Unclaimed(self._store, self._hypervisor, request_lookup)
        runner = PassRunner(self._store, self._queue, reconciler, self._unclaimed, on_pass)
        self._watch = Watch(
            self._store,
            wake=self._wake,
            check=partial(self._wake, urgent=False),
            online_cpus=self._hypervisor.online_cpus,
            on_offline=self._hypervisor.lost_cpus.went_offline,
            windows=windows,
            threads=threads,
            settings=lambda: self.settings,
            heartbeats=heartbeats,
        )
        self._workers = Workers(
            workers,
            self._queue,
            self._hypervisor.calls,
            work=runner.run,
            on_hung=runner.report_hung,
            heartbeats=heartbeats,
        )

    def start(self) -> None:
        """Start all threads; return at once, whether libvirt is available or not."""
        self._workers.start()
        self._watch.start()
        self._connections.start()

    def stop(self, timeout: float) -> None:
        """Finish the passes that have begun, for at most ``timeout`` seconds.

        All others are on disk, and follow after the next start.
        """
        self._watch.stop()
        self._workers.stop()
        self._queue.close()
        ended = self._workers.join(timeout)
        self._connections.stop()
        if ended:
            self._store.close()
        self._lock.close()

    def batch(self) -> AbstractContextManager[None]:
        """Judge the requests made in a context together: no pass begins before it ends."""
        return self._queue.batch()

    def request(self, instance_uuid: str, request: Request) -> bool:
        """Store a request, also one that can't be read.

        :returns: whether it changes the desired allocation.
        :raises StoreUnavailable: if it can't be stored.
        """
        refusal = request.requested if isinstance(request.requested, exception.Refused) else None
        if not refusal and not request.requested and not self._store.has_record(instance_uuid):
            if self._unclaimed.note_unrequested(instance_uuid):
                self._queue.add(instance_uuid)
            return False
        self._unclaimed.note_requested(instance_uuid)
        if changed := self._store.request(instance_uuid, request):
            LOG.debug("Instance %s: requested %s", instance_uuid, request.requested)
            if refusal is not None:
                self.statistics.refused(refusal)
                log_refusal(instance_uuid, refusal)
        self._queue.add(instance_uuid)
        return changed

    def withdraw(self, instance_uuid: str, source: Source, requested_by: str) -> bool:
        """Withdraw a source's request; return whether there was one.

        :raises StoreUnavailable: if that can't be stored.
        """
        withdrawn = self._store.withdraw(instance_uuid, source, requested_by)
        if withdrawn:
            self._queue.add(instance_uuid)
        return withdrawn

    def withdraw_all(self, source: Source, requested_by: str) -> None:
        """Withdraw all requests of a source, because its trigger is no longer used here.

        :raises StoreUnavailable: if that can't be stored.
        """
        for instance_uuid in self._store.requested_by(source):
            LOG.info("Instance %s: the request from %s is withdrawn", instance_uuid, source)
            self.withdraw(instance_uuid, source, requested_by)

    def requested_by(self, source: Source) -> dict[str, tuple[int, Record]]:
        """Return the generation and the record of each instance with a request of a source.

        :raises StoreUnavailable: if they can't be read.
        """
        return self._store.requested_by(source)

    def returning(self) -> set[str]:
        """Return the instances that have not yet returned to their baseline.

        :raises StoreUnavailable: if they can't be read.
        """
        return self._store.returning()

    def guests(self) -> list[str]:
        """Return the instances that run on this host.

        :raises HypervisorUnavailable: if libvirt is unavailable.
        """
        return [guest.instance_uuid for guest in self._hypervisor.occupants() if guest.nova]

    def snapshot(self) -> dict[str, Any]:
        """Return a snapshot of the host as JSON; see :mod:`kongming.host.snapshot`.

        :raises HypervisorUnavailable: if libvirt is unavailable.
        :raises Failed: if libvirt reports an error.
        """
        return snapshot.to_json(
            self._hypervisor.topology(), self._hypervisor.occupants(), self.settings.rules
        )

    def plan(self, instance_uuid: str, allocation: Allocation) -> dry_run.DryRun:
        """Return what would be changed on a guest, without changing it.

        :raises Refused: if the request would be refused.
        :raises GuestAbsent: if there is no such guest now.
        :raises HypervisorUnavailable: if libvirt is unavailable.
        """
        with self._hypervisor.guest(instance_uuid) as guest:
            return dry_run.run(self._placer, guest, instance_uuid, allocation)

    def plan_all(
        self, requested: Mapping[str, Allocation]
    ) -> dict[str, dry_run.DryRun | exception.KongmingError]:
        """Return what a request for several instances would change; see :func:`dry_run.run_all`.

        :raises HypervisorUnavailable: if libvirt is unavailable.
        """
        return dry_run.run_all(self._placer, self._hypervisor.guest, requested)

    def set_hint(self, instance_uuid: str, hint: Hint) -> None:
        """Store where Nova reports an instance; the next pass decides by that and by libvirt.

        :raises StoreUnavailable: if it can't be stored.
        """
        if self._store.has_record(instance_uuid) and self._store.hints.save(instance_uuid, hint):
            self._queue.add(instance_uuid)

    def clear_hints(self) -> None:
        """Delete all of Nova's reports, because Nova is not used here any more.

        :raises StoreUnavailable: if that can't be stored.
        """
        self._store.hints.clear()

    def forget(self, instance_uuid: str) -> None:
        """Forget an instance that is no longer on this host.

        :raises StoreUnavailable: if that can't be stored.
        """
        if not self._store.has_record(instance_uuid):
            return
        if self._store.forget(instance_uuid, "has left this host"):
            LOG.info("Instance %s: has left this host, forgotten", instance_uuid)

    def has_record(self, instance_uuid: str) -> bool:
        """Return whether an instance has a record; this reads no file."""
        return self._store.has_record(instance_uuid)

    @property
    def instances(self) -> frozenset[str]:
        """The instances that have a record."""
        return self._store.instances()

    def check_all(self) -> None:
        """Check all instances, for example after a change of the rules."""
        self._wake(self._store.instances())

    @property
    def connected(self) -> bool:
        """Whether libvirt is available."""
        return self._connections.connected

    @property
    def queue_depth(self) -> int:
        """How many instances wait for a worker now."""
        return len(self._queue)

    def records(self) -> list[Record]:
        """Return all records.

        :raises StoreUnavailable: if they can't be read.
        """
        return self._store.records()

    @property
    def held_up(self) -> int:
        """How many workers wait for a slow libvirt call."""
        return self._workers.held_up

    def _on_connected(self) -> None:
        instances = self._store.instances()
        if instances:
            LOG.info("Checking all %d instances with a request", len(instances))
        self._unclaimed.note_event()
        self._wake([*instances, UNCLAIMED])
        self._on_connect()

    def _on_guest_event(self, instance_uuid: str) -> None:
        self._unclaimed.note_event(instance_uuid)
        self._queue.add(instance_uuid)
        if not self._store.has_record(instance_uuid):
            self._on_unknown_guest(instance_uuid)

    def _on_guest_change(self, instance_uuid: str) -> None:
        # Not urgent: a guest that is changed permanently must not occupy the workers.
        if self._store.has_record(instance_uuid):
            self._queue.add(instance_uuid, urgent=False)

    def _wake(self, instance_uuids: Iterable[str], *, urgent: bool = True) -> None:
        for instance_uuid in instance_uuids:
            self._queue.add(instance_uuid, urgent=urgent)
