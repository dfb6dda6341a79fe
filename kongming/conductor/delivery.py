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

"""Taking care that what is wanted gets to where the instances are.

At once, for what was changed just now; and for the rest one of the conductors
looks into Nova and the database now and then, which the lease says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
import logging
import threading
import time

from kongming import exception
from kongming.allocation.statuses import Status
from kongming.conductor.nova_sync import Whereabouts
from kongming.conductor.pusher import Pusher
from kongming.db.allocations import Allocations
from kongming.db.leases import Leases
from kongming.db.values import Entry, Location
from kongming.rpc.messages import Report
from kongming.runtime.availability import Contact
from kongming.runtime.backoff import Backoff
from kongming.runtime.timer import Due, anywhere

LOG = logging.getLogger(__name__)

_LEASE = "nova"
_LEASE_S = 30.0
_TICK_S = 1.0
_RENEW_S = 10.0
# How often those are looked for that were on no host.
_LOST_S = 20.0
_LOST_MAX = 5_000
_RETRY_MAX_S = 60.0


class Care:
    """Brings what is wanted to the hosts.

    :param holder: the name of this conductor, among the others.
    :param whereabouts: asks Nova; None if the executors say what runs where.
    """

    def __init__(
        self,
        holder: str,
        allocations: Allocations,
        leases: Leases,
        pusher: Pusher,
        whereabouts: Whereabouts | None,
        *,
        interval: Callable[[], float],
        full_interval: Callable[[], float],
    ) -> None:
        self._holder = holder
        self._allocations = allocations
        self._leases = leases
        self._pusher = pusher
        self._whereabouts = whereabouts
        self._changes = Due(interval)
        self._all = Due(full_interval)
        self._lost = Due(lambda: _LOST_S)
        self._renewal = Due(lambda: _RENEW_S)
        self._mine = False
        self._lock = threading.Lock()
        self._unsure: set[str] = set()
        self._backoff = Backoff(_RETRY_MAX_S)
        self._stopping = threading.Event()
        self._contact = Contact("Nova", LOG)
        self._database = Contact("The database", LOG)
        self._thread = threading.Thread(target=self._run, name="care", daemon=True)

    @property
    def since(self) -> float | None:
        """Since when Nova does not answer, by the wall clock; None if it does."""
        return self._contact.since

    def start(self) -> None:
        """Begin; returns at once."""
        self._renewal.come_within(0.0)
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End; another conductor goes on."""
        self._stopping.set()
        self._thread.join(timeout)

    def take(self, instance_uuids: Sequence[str]) -> None:
        """See that what is wanted for some instances gets to their hosts."""
        problem = self._try_to(lambda: self._deliver(instance_uuids))
        if problem is not None:
            # Who is on a host that is known of asks by itself.
            self.ask_nova(instance_uuids)

    def host_of(self, instance_uuid: str) -> str | None:
        """Say on which host an instance is.

        :raises NovaUnavailable: if only Nova could tell.
        :raises DatabaseUnavailable: if it can't be read.
        """
        if self._whereabouts is not None:
            return self._whereabouts.host_of(instance_uuid)
        entry = self._allocations.get(instance_uuid)
        if entry is not None and entry.holder:
            return entry.holder
        return self._pusher.seen().get(instance_uuid)

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
        if self._whereabouts is not None:
            whose = set(self._allocations.without_project()) & set(instance_uuids)
            return self._whereabouts.locate({*nowhere, *whose}) if nowhere or whose else []
        seen = self._pusher.seen() if nowhere else {}
        there = {uuid: Location(None, seen[uuid]) for uuid in nowhere if uuid in seen}
        return self._allocations.locate(there) if there else []

    def _answer_for(self, instance_uuids: Sequence[str]) -> None:
        """Say of instances that are nowhere what no host will say."""
        entries = self._allocations.desired(instance_uuids) if instance_uuids else {}
        now = time.time()
        answers = [
            Report.released(entry.instance_uuid, entry.generation, now)
            if entry.allocation is None
            else _absent(entry, now)
            for entry in entries.values()
            if entry.status in (Status.PENDING, Status.RELEASING)
        ]
        if answers:
            self._allocations.report("", answers, now)

    def _run(self) -> None:
        while not self._stopping.wait(_TICK_S):
            if (pause := self._step()) is not None:
                self._stopping.wait(pause)

    def _step(self) -> float | None:
        """Do what is due; give the seconds to wait if something is away."""
        problem = self._try_to(self._look)
        if problem is None:
            self._backoff.reset()
            return None
        return max(self._backoff.next() * anywhere(0.5, 1.0), problem)

    def _try_to(self, work: Callable[[], None]) -> float | None:
        """Do some work; give for how many seconds at least it is to be left if it fails."""
        try:
            work()
        except exception.NovaUnavailable as error:
            self._contact.lost(
                f"Nova's API can't be used ({error.reason}): {error}; keeping current placements "
                "until it can"
            )
            return error.retry_after
        except exception.DatabaseUnavailable as error:
            self._database.lost(
                f"{error}; hosts keep their last desired allocations until the database is "
                "available"
            )
            return 0.0
        except Exception as error:
            LOG.exception("A fault of Kongming in delivery: %s; it will be retried", error)  # noqa: TRY401
            return 0.0
        return None

    def _look(self) -> None:
        self._look_at_unsure()
        if self._renewal.has_come():
            mine = self._leases.acquire(_LEASE, self._holder, _LEASE_S)
            self._database.answered()
            if mine and not self._mine:
                # What was looked at before, and when, only the other one knew.
                self._all.come_within(0.0)
            self._mine = mine
            self._renewal.begin_anew()
        if not self._mine:
            return
        if self._whereabouts is not None:
            self._look_into_nova(self._whereabouts)
        if self._lost.has_come():
            self._lost.begin_anew()
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
        if self._whereabouts is not None:
            self._whereabouts.locate(instance_uuids)
            self._contact.answered()
        self._deliver(sorted(instance_uuids))

    def _look_into_nova(self, whereabouts: Whereabouts) -> None:
        if self._all.has_come():
            moved = whereabouts.look_at_all()
            self._all.begin_anew()
        elif self._changes.has_come():
            moved = whereabouts.look_at_changes()
        else:
            return
        self._changes.begin_anew()
        self._contact.answered()
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
