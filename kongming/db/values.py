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

"""What the database gives and takes: immutable values. Times are seconds since the epoch, UTC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kongming.allocation.allocation import Allocation
from kongming.allocation.statuses import Status
from kongming.allocation.stored import Unreadable

_SILENT_AFTER = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a host last said of an instance.

    :ivar host: who said it; empty if it was a conductor, as of an instance that is nowhere.
    :ivar generation: of what was wanted.
    :ivar reason: reason code of a refusal, failure or drift; empty otherwise.
    :ivar source: who had asked the host for it; empty if it did not say.
    :ivar drift: what was last found to be other than wanted; empty if never.
    :ivar drift_at: when that was found.
    :ivar changed_at: when the status changed, by the host's clock.
    :ivar reported_at: when the host told of the change.
    :ivar unobserved: what of the placement can't be observed there, and why; empty if all can,
        None if the host did not say.
    """

    host: str
    generation: int
    status: str
    reason: str
    message: str
    source: str
    drift: str
    drift_at: float | None
    changed_at: float
    reported_at: float
    unobserved: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """What is wanted for one instance, and what last came of it.

    :ivar allocation: None if it is to go back to its baseline; what can't be read says so.
    :ivar generation: grows with each change of the allocation.
    :ivar project_id: whose instance it is; None if nobody has said yet.
    :ivar host: where it is; None if that is not known, or nowhere.
    :ivar map_name: the allocation map that it belongs to.
    :ivar asked_by: who asked for it last.
    :ivar updated_at: when the allocation last changed.
    """

    instance_uuid: str
    allocation: Allocation | Unreadable | None
    generation: int
    project_id: str | None
    host: str | None
    map_name: str | None
    asked_by: str
    created_at: float
    updated_at: float
    outcome: Outcome | None

    @property
    def status(self) -> str:
        """How far what is wanted has come."""
        if self.allocation is None:
            return Status.RELEASING
        if self.outcome is None or self.outcome.generation != self.generation:
            return Status.PENDING
        return self.outcome.status

    @property
    def reporter(self) -> str | None:
        """The host that last spoke of it, or is to; None if none did, nor is."""
        told = None if self.outcome is None else self.outcome.host
        return told or self.host

    @property
    def holder(self) -> str | None:
        """The host whose word counts for it, and which is told what is wanted.

        It is the one that has it; of an instance that is nowhere, the one that had it last.
        """
        return holder(self.host, None if self.outcome is None else self.outcome.host)

    @property
    def unknown(self) -> bool:
        """Whether it was looked for in vain: neither Nova nor any host knows of it."""
        return self.project_id is None and self.holder is None and self.outcome is not None


@dataclass(frozen=True, slots=True)
class Map:
    """An allocation map, without its allocations.

    :ivar generation: grows with each change of any of its allocations.
    :ivar deleting: whether it goes as soon as its last instance is released.
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
    """One entry of an instance's history.

    What was asked, completed with what first came of it. What came of it later
    is an entry of its own, which nobody asked for.

    :ivar id: grows from each entry to the next.
    :ivar allocation: None for a release, and for a server that is gone; what can't be read says
        so.
    :ivar asked_by: empty if it is a later outcome.
    :ivar host: who said what came of it; None as long as nobody did.
    """

    id: int
    instance_uuid: str
    generation: int
    allocation: Allocation | Unreadable | None
    map_name: str | None
    asked_by: str
    request_id: str
    asked_at: float
    status: str
    reason: str
    message: str
    host: str | None
    changed_at: float


@dataclass(frozen=True, slots=True)
class Location:
    """Whose instance it is, and where; ``host`` is None if it is nowhere."""

    project_id: str | None
    host: str | None


@dataclass(frozen=True, slots=True)
class Host:
    """What is known of a compute host's executor.

    :ivar seen_at: when it was last heard of.
    :ivar started_at: when it started.
    :ivar interval_s: how often it says that it is there, in seconds.
    :ivar view: its topology and guests, as JSON has them; None if it never
        told them, or if they were not asked for.
    :ivar view_digest: tells two views apart; empty if there is none.
    :ivar view_at: when it told them.
    :ivar guests: how many it told of.
    :ivar violations: how many it told of.
    """

    name: str
    seen_at: float
    started_at: float
    version: str
    interval_s: float
    view: dict[str, Any] | None
    view_digest: str
    view_at: float | None
    guests: int
    violations: int

    def silent(self, now: float) -> bool:
        """Tell whether it was not heard of for so long that something is wrong."""
        return now - self.seen_at > _SILENT_AFTER * self.interval_s


def holder(host: str | None, reporter: str | None) -> str | None:
    """Return the host whose word on an instance counts; None if no host's does.

    :param host: where the instance is: by Nova's word, or that of the first host to claim it.
    :param reporter: who last spoke of it.
    """
    return host or reporter or None
