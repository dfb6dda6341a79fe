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

"""Taking delivery that what is wanted gets to where the instances are.

At once, for what was changed just now; and for the rest one of the conductors
looks into Nova and the database now and then, which the lease says.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
import logging
import threading
import time

from kongming import exception
from kongming.allocation.statuses import Status
from kongming.conductor.nova_sync import NovaSync
from kongming.conductor.pusher import Pusher
from kongming.db.allocations import Allocations
from kongming.db.leases import Leases
from kongming.db.values import Entry, Location
from kongming.nova.polling import PollIntervals
from kongming.rpc.messages import Report
from kongming.runtime.availability import Availability
from kongming.runtime.loop import Loop
from kongming.runtime.timer import Timer

LOG = logging.getLogger(__name__)

_LEASE = "nova"
_LEASE_S = 30.0
_TICK_S = 1.0
_RENEW_S = 10.0
# How often those are looked for that were on no host.
_LOST_S = 20.0
_LOST_MAX = 5_000
_RETRY_MAX_S = 60.0


class Delivery:
    """Brings what is wanted to the hosts.

    :param holder: the name of this conductor, among the others.
    :param nova_sync: asks Nova; None if the executors say what runs where.
    :ivar intervals: those in force; they may be replaced at any time.
    """

    def __init__(
        self,
        holder: str,
        allocations: Allocations,
        leases: Leases,
        pusher: Pusher,
        nova_sync: NovaSync | None,
        intervals: PollIntervals,
    ) -> None:
        self._holder = holder
        self._allocations = allocations
        self._leases = leases
        self._pusher = pusher
        self._nova_sync = nova_sync
        self.intervals = intervals
        self._changes, self._all, self._lost, self._renewal = Timer(), Timer(), Timer(), Timer()
        self._mine = False
        self._lock = threading.Lock()
        self._unsure: set[str] = set()
        self._nova = Availability("Nova", LOG)
        self._database = Availability("The database", LOG)
        self._loop = Loop(
            "delivery",
            "delivery",
            self._step,
            interval_s=_TICK_S,
            retry_max_s=_RETRY_MAX_S,
            on_error=self._report,
        )

    @property
    def nova_available(self) -> bool:
        """Whether Nova could be used at the last attempt."""
        return self._nova.is_available

    def start(self) -> None:
        """Begin; returns at once."""
        self._renewal.expire_within(0.0)
        self._loop.start()

    def stop(self, timeout: float) -> None:
        """End; another conductor goes on."""
        self._loop.stop(timeout)

    def take(self, instance_uuids: Sequence[str]) -> None:
        """See that what is wanted for some instances gets to their hosts."""
        try:
            self._deliver(instance_uuids)
        except (exception.NovaUnavailable, exception.DatabaseUnavailable) as error:
            self._report(error)
            # Who is on a host that is known of asks by itself.
            self.ask_nova(instance_uuids)

    def host_of(self, instance_uuid: str) -> str | None:
        """Say on which host an instance is.

        :raises NovaUnavailable: if only Nova could tell.
        :raises DatabaseUnavailable: if it can't be read.
        """
        if self._nova_sync is not None:
            return self._nova_sync.host_of(instance_uuid)
        entry = self._allocations.get(instance_uuid)
        if entry is not None and entry.holder:
            return entry.holder
        return self._pusher.hosts_of_guests().get(instance_uuid)

    def ask_nova(self, instance_uuids: Collection[str]) -> None:
        """Have Nova asked about some instances soon."""
        with self._lock:
            self._unsure.update(instance_uuids)

    def _deliver(self, instance_uuids: Sequence[str]) -> None:
        """Tell those hosts that are known, then ask Nova for the others."""
        nowhere = self._pusher.push(instance_uuids)
        found = self._find(nowhere, instance_uuids)
        if found:
            nowhere = self._pusher.push(found) + [uuid for uuid in nowhere if uuid not in found]
        self._answer_for(nowhere)

    def _find(self, nowhere: Collection[str], instance_uuids: Collection[str]) -> list[str]:
        """Find out where instances are, and whose; give those that have moved."""
        if self._nova_sync is not None:
            whose = set(self._allocations.without_project()) & set(instance_uuids)
            return self._nova_sync.locate({*nowhere, *whose}) if nowhere or whose else []
        hosts = self._pusher.hosts_of_guests() if nowhere else {}
        found = {uuid: Location(None, hosts[uuid]) for uuid in nowhere if uuid in hosts}
        return self._allocations.locate(found) if found else []

    def _answer_for(self, instance_uuids: Sequence[str]) -> None:
        """Say of instances that are nowhere what no host will say."""
        entries = self._allocations.desired(instance_uuids) if instance_uuids else {}
        now = time.time()
        answers = [
            Report.released(entry.instance_uuid, entry.generation, now)
            if entry.allocation is None
            else _absent(entry, now)
            for entry in entries.values()
            if not entry.status.is_settled
        ]
        if answers:
            self._allocations.report("", answers, now)

    def _report(self, error: exception.KongmingError) -> None:
        if isinstance(error, exception.NovaUnavailable):
            self._nova.lost(
                f"Nova's API can't be used ({error.reason}): {error}; keeping current placements "
                "until it can",
                kind=error.reason,
            )
        else:
            self._database.lost(
                f"{error}; hosts keep their last desired allocations until the database is "
                "available"
            )

    def _step(self) -> None:
        self._look_at_unsure()
        if self._renewal.is_due(_RENEW_S):
            mine = self._leases.acquire(_LEASE, self._holder, _LEASE_S)
            self._database.restored()
            if mine and not self._mine:
                # What was looked at before, and when, only the other one knew.
                self._all.expire_within(0.0)
            self._mine = mine
            self._renewal.restart()
        if not self._mine:
            return
        if self._nova_sync is not None:
            self._look_into_nova(self._nova_sync)
        if self._lost.is_due(_LOST_S):
            self._lost.restart()
            self._allocations.sweep()
            lost = self._allocations.without_host(_LOST_MAX)
            if lost:
                self._deliver(lost)

    def _look_at_unsure(self) -> None:
        with self._lock:
            unsure, self._unsure = self._unsure, set()
        if not unsure:
            return
        try:
            self._deliver_anew(unsure)
        except (exception.NovaUnavailable, exception.DatabaseUnavailable):
            self.ask_nova(unsure)
            raise

    def _deliver_anew(self, instance_uuids: set[str]) -> None:
        if self._nova_sync is not None:
            self._nova_sync.locate(instance_uuids)
            self._nova.restored()
        self._deliver(sorted(instance_uuids))

    def _look_into_nova(self, nova_sync: NovaSync) -> None:
        if self._all.is_due(self.intervals.full_s):
            moved = nova_sync.resync()
            self._all.restart()
        elif self._changes.is_due(self.intervals.changes_s):
            moved = nova_sync.poll_changes()
        else:
            return
        self._changes.restart()
        self._nova.restored()
        if moved:
            self._pusher.push(moved)


def _absent(entry: Entry, now: float) -> Report:
    return Report(
        instance_uuid=entry.instance_uuid,
        generation=entry.generation,
        status=Status.ABSENT,
        reason=exception.GuestAbsent.reason,
        message="the instance is on no host yet; it is placed when it starts",
        source="",
        drift="",
        drift_at=None,
        changed_at=now,
    )
