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

"""The values of the database: immutable. Times are seconds since the epoch, UTC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kongming.allocation.allocation import Allocation
from kongming.allocation.statuses import Status
from kongming.allocation.stored import Unreadable
from kongming.rpc.messages import Report

_UNRESPONSIVE_AFTER = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Report):
    """The last report of an instance, as it is stored.

    :ivar host: the host that reported; empty if a conductor did, for an instance that is on no
        host.
    :ivar reported_at: when the host reported the change.
    """

    host: str
    reported_at: float


@dataclass(frozen=True, slots=True)
class Entry:
    """The desired allocation of one instance, and its last outcome.

    :ivar allocation: None for a release; :class:`Unreadable` if the stored one can't be read.
    :ivar generation: grows with each change of the allocation.
    :ivar project_id: the instance's project; None if it is not known yet.
    :ivar host: the instance's host; None if it is unknown, or if no host has it.
    :ivar map_name: the allocation map that it belongs to.
    :ivar requested_by: who made the last request.
    :ivar updated_at: when the allocation last changed.
    """

    instance_uuid: str
    allocation: Allocation | Unreadable | None
    generation: int
    project_id: str | None
    host: str | None
    map_name: str | None
    requested_by: str
    created_at: float
    updated_at: float
    outcome: Outcome | None

    @property
    def status(self) -> Status:
        """The status of the desired allocation."""
        if self.allocation is None:
            return Status.RELEASING
        if self.outcome is None or self.outcome.generation != self.generation:
            return Status.PENDING
        return self.outcome.status

    @property
    def reporter(self) -> str | None:
        """The host that last reported the instance, or has it; None if there is none."""
        reported = None if self.outcome is None else self.outcome.host
        return reported or self.host

    @property
    def holder(self) -> str | None:
        """The host whose reports are accepted, and which receives the desired allocation.

        It is the host that has the instance; if none has, the one that had it last.
        """
        return holder(self.host, None if self.outcome is None else self.outcome.host)

    @property
    def unknown(self) -> bool:
        """Whether neither Nova nor any host knows the instance."""
        return self.project_id is None and self.holder is None and self.outcome is not None


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of the status of one instance's allocation.

    :ivar host: the host that reported it; empty if a conductor did.
    :ivar map_name: the allocation map that the instance belongs to.
    :ivar changed_at: when the status changed, as a Unix timestamp.
    """

    instance_uuid: str
    project_id: str | None
    host: str
    map_name: str | None
    generation: int
    status: Status
    reason: str
    message: str
    changed_at: float


@dataclass(frozen=True, slots=True)
class Map:
    """An allocation map, without its allocations.

    :ivar generation: grows with each change of any of its allocations.
    :ivar deleting: whether it is deleted with its last instance.
    :ivar instances: how many belong to it.
    """

    name: str
    generation: int
    deleting: bool
    created_at: float
    updated_at: float
    instances: int


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of an instance's history: a request with its first outcome.

    Each later outcome is an entry of its own, without a request.

    :ivar id: grows from each entry to the next.
    :ivar allocation: None for a release and for a deleted server; :class:`Unreadable` if the
        stored one can't be read.
    :ivar requested_by: empty if it is a later outcome.
    :ivar host: the host that reported the outcome; None as long as none did.
    """

    id: int
    instance_uuid: str
    generation: int
    allocation: Allocation | Unreadable | None
    map_name: str | None
    requested_by: str
    request_id: str
    requested_at: float
    status: Status
    reason: str
    message: str
    host: str | None
    changed_at: float


@dataclass(frozen=True, slots=True)
class Location:
    """The project and host of an instance; ``host`` is None if it is on no host."""

    project_id: str | None
    host: str | None


@dataclass(frozen=True, slots=True)
class Host:
    """A compute host's executor.

    :ivar heartbeat_at: the time of its last heartbeat.
    :ivar started_at: when it started.
    :ivar interval_s: the time between heartbeats in seconds.
    :ivar snapshot: its topology and guests as JSON; None if it has sent none, or if it was not
        read.
    :ivar snapshot_digest: differs between snapshots; empty if there is none.
    :ivar snapshot_at: when it sent the snapshot.
    :ivar guests: the number of guests in the snapshot.
    :ivar violations: the number of violations in the snapshot.
    """

    name: str
    heartbeat_at: float
    started_at: float
    version: str
    interval_s: float
    snapshot: dict[str, Any] | None
    snapshot_digest: str
    snapshot_at: float | None
    guests: int
    violations: int

    def unresponsive(self, now: float) -> bool:
        """Return whether it has missed its heartbeats."""
        return now - self.heartbeat_at > _UNRESPONSIVE_AFTER * self.interval_s


def holder(host: str | None, reporter: str | None) -> str | None:
    """Return the host whose reports on an instance are accepted; None if there is none.

    :param host: the instance's host: from Nova, or the first host to claim it.
    :param reporter: the host that last reported it.
    """
    return host or reporter or None
