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

"""The delivery of desired allocations to the hosts of the instances.

Changes are pushed at once. For the rest, the conductor with the lease polls Nova and the database.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
import logging
import threading
import time

from kongming import exception
from kongming.allocation.statuses import Status
from kongming.conductor.notifications import Notifications
from kongming.conductor.nova_sync import NovaSync
from kongming.conductor.pusher import Pusher
from kongming.db.allocations import Allocations
from kongming.db.hosts import Hosts
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
# The interval of searches for instances on no host.
_SEARCH_S = 20.0
_SEARCH_MAX = 5_000
_RETRY_MAX_S = 60.0


class Delivery:
    """The delivery of desired allocations. Thread-safe.

    :param holder: the name of this conductor as the holder of the lease.
    :param nova_sync: None without Nova.
    :ivar intervals: of polling Nova; may be replaced at any time.
    """

    def __init__(
        self,
        holder: str,
        allocations: Allocations,
        leases: Leases,
        pusher: Pusher,
        nova_sync: NovaSync | None,
        intervals: PollIntervals,
        notifications: Notifications,
        hosts: Hosts,
    ) -> None:
        self._holder = holder
        self._allocations = allocations
        self._leases = leases
        self._pusher = pusher
        self._nova_sync = nova_sync
        self.intervals = intervals
        self._notifications = notifications
        self._hosts = hosts
        self._changes, self._resync, self._search, self._renewal = (Timer() for _ in range(4))
        self._has_lease = False
        self._lock = threading.Lock()
        self._unlocated: set[str] = set()
        self._nova = Availability("Nova", LOG)
        self._database = Availability("The database", LOG)
        self._loop = Loop(
            "delivery",
            "delivery",
            self._step,
            interval_s=_TICK_S,
            retry_max_s=_RETRY_MAX_S,
            on_error=self._log_error,
        )

    @property
    def nova_available(self) -> bool:
        """Whether Nova could be used at the last attempt."""
        return self._nova.is_available

    def start(self) -> None:
        """Start the thread."""
        self._renewal.expire_within(0.0)
        self._loop.start()

    def stop(self, timeout: float) -> None:
        """Stop the thread; another conductor takes the lease."""
        self._loop.stop(timeout)

    def deliver(self, instance_uuids: Sequence[str]) -> None:
        """Push the desired allocations of some instances to their hosts, or retry it later."""
        try:
            self._deliver(instance_uuids)
        except (exception.NovaUnavailable, exception.DatabaseUnavailable) as error:
            self._log_error(error)
            self.locate_soon(instance_uuids)

    def host_of(self, instance_uuid: str) -> str | None:
        """Return the host of an instance; None if it is on no known host.

        :raises NovaUnavailable: if Nova is needed.
        :raises DatabaseUnavailable: if it can't be read.
        """
        if self._nova_sync is not None:
            return self._nova_sync.host_of(instance_uuid)
        entry = self._allocations.get(instance_uuid)
        if entry is not None and entry.holder:
            return entry.holder
        return self._pusher.hosts_of_guests().get(instance_uuid)

    def hosts_of(self, instance_uuids: Collection[str]) -> Mapping[str, str | None]:
        """Return the hosts of instances, of those that are on a known host.

        The database is read first: Nova may take long for many instances.

        :raises NovaUnavailable: if Nova is needed.
        :raises DatabaseUnavailable: if it can't be read.
        """
        entries = self._allocations.desired(instance_uuids)
        hosts = {uuid: entry.holder for uuid, entry in entries.items() if entry.holder}
        others = [uuid for uuid in instance_uuids if uuid not in hosts]
        if others and self._nova_sync is not None:
            return hosts | self._nova_sync.hosts_of(others)
        return (self._pusher.hosts_of_guests() if others else {}) | hosts

    def locate_soon(self, instance_uuids: Collection[str]) -> None:
        """Locate some instances in the background, and push their desired allocations."""
        with self._lock:
            self._unlocated.update(instance_uuids)

    def _deliver(self, instance_uuids: Sequence[str]) -> None:
        """Push to the known hosts, then locate the other instances."""
        remaining = self._pusher.push(instance_uuids)
        moved = self._locate(remaining, instance_uuids)
        if moved:
            remaining = [uuid for uuid in remaining if uuid not in moved]
            remaining += self._pusher.push(moved)
        self._report_without_host(remaining)

    def _locate(self, without_host: Collection[str], instance_uuids: Collection[str]) -> list[str]:
        """Locate instances, also to find their projects; return those that have moved."""
        if self._nova_sync is not None:
            unknown = set(self._allocations.without_project()) & set(instance_uuids)
            unknown.update(without_host)
            return self._nova_sync.locate(unknown) if unknown else []
        hosts = self._pusher.hosts_of_guests() if without_host else {}
        found = {uuid: Location(None, hosts[uuid]) for uuid in without_host if uuid in hosts}
        return self._allocations.locate(found) if found else []

    def _report_without_host(self, instance_uuids: Sequence[str]) -> None:
        """Store the reports of instances on no host, because no host will send them."""
        entries = self._allocations.desired(instance_uuids) if instance_uuids else {}
        now = time.time()
        reports = [report_without_host(entry, now) for entry in entries.values()]
        if pending := [each for each in reports if each is not None]:
            self._notifications.of_allocations(self._allocations.report("", pending, now))

    def _log_error(self, error: exception.KongmingError) -> None:
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
        self._deliver_unlocated()
        if self._renewal.is_due(_RENEW_S):
            has_lease = self._leases.acquire(_LEASE, self._holder, _LEASE_S)
            self._database.restored()
            if has_lease and not self._has_lease:
                # Only the former holder knows when it polled, and which hosts responded.
                self._resync.expire_within(0.0)
                self._search.expire_within(0.0)
            self._has_lease = has_lease
            self._renewal.restart()
        if not self._has_lease:
            return
        if self._nova_sync is not None:
            self._poll_nova(self._nova_sync)
        if self._search.is_due(_SEARCH_S):
            self._search.restart()
            self._allocations.sweep()
            self._notifications.of_hosts(partial(self._hosts.list, snapshots=False), time.time())
            found = self._allocations.without_host(_SEARCH_MAX)
            if found:
                self._deliver(found)

    def _deliver_unlocated(self) -> None:
        with self._lock:
            unlocated, self._unlocated = self._unlocated, set()
        if not unlocated:
            return
        try:
            if self._nova_sync is not None:
                self._nova_sync.locate(unlocated)
                self._nova.restored()
            self._deliver(sorted(unlocated))
        except (exception.NovaUnavailable, exception.DatabaseUnavailable):
            self.locate_soon(unlocated)
            raise

    def _poll_nova(self, nova_sync: NovaSync) -> None:
        if self._resync.is_due(self.intervals.full_s):
            moved = nova_sync.resync()
            self._resync.restart()
        elif self._changes.is_due(self.intervals.changes_s):
            moved = nova_sync.poll_changes()
        else:
            return
        self._changes.restart()
        self._nova.restored()
        if moved:
            self._pusher.push(moved)


def report_without_host(entry: Entry, now: float) -> Report | None:
    """Return the report of an instance on no host; None if its outcome is known."""
    if entry.status.is_settled:
        return None
    if entry.allocation is None:
        return Report.released(entry.instance_uuid, entry.generation, now)
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
