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
"""Requests: sending, settling if the answer is lost, following and showing them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kongming.allocation.statuses import Status
from kongming.osc import columns, watching
from kongming.osc.client import Client
from kongming.osc.progress import Json, Progress, counts, is_same
from kongming.osc.watching import MapPlacement, Placement, Releases

RELEASED = Status.RELEASED.value
REPLACED = "replaced"


class Unsettled(Exception):
    """The request is not in force: not yet, or it was not accepted."""


class Request(Protocol):
    """A request that changes desired allocations."""

    @property
    def what(self) -> str:
        """A description of the request for people."""

    @property
    def shown_by(self) -> str:
        """The command that shows its outcome."""

    def send(self, client: Client) -> Json | None:
        """Send it, and return the answer of the API; None if it is complete.

        :raises Fault: if it was refused, or if that is unknown.
        """

    def settle(self, client: Client) -> Json | None:
        """Return the lost answer of :meth:`send`, if the request is in force.

        :raises Unsettled: if it is not.
        :raises Fault: if the API gives no answer.
        """

    def poller(self, client: Client, answer: Json) -> Callable[[], Progress]:
        """Return a function that reads the progress of the accepted request."""

    def fields(self, answer: Json | None, progress: Progress | None) -> dict[str, Any]:
        """Return the request as columns.

        :param answer: the answer that accepted it; None if it is complete.
        :param progress: the last progress that was read; None if none was.
        """


@dataclass(frozen=True, slots=True)
class _OfInstance:
    instance_uuid: str

    @property
    def shown_by(self) -> str:
        return f"openstack kongming allocation show {self.instance_uuid}"


@dataclass(frozen=True, slots=True)
class _OfMap:
    name: str

    @property
    def shown_by(self) -> str:
        return f"openstack kongming allocation map show {self.name}"


@dataclass(frozen=True, slots=True)
class SetAllocation(_OfInstance):
    """Request an allocation for an instance."""

    requested: Mapping[str, Any]
    generation: int | None

    @property
    def what(self) -> str:
        return f"the allocation of instance {self.instance_uuid}"

    def send(self, client: Client) -> Json | None:
        return client.set_allocation(self.instance_uuid, self.requested, self.generation)

    def settle(self, client: Client) -> Json | None:
        found = watching.find_allocation(client, self.instance_uuid)
        if found is None or not is_same(found.get("allocation"), self.requested):
            raise Unsettled
        return found

    def poller(self, client: Client, answer: Json) -> Callable[[], Progress]:
        return Placement(client, answer).poll

    def fields(self, answer: Json | None, progress: Progress | None) -> dict[str, Any]:
        return columns.of_fields(_latest(answer or {}, progress))


@dataclass(frozen=True, slots=True)
class UnsetAllocation(_OfInstance):
    """Release an instance."""

    generation: int | None

    @property
    def what(self) -> str:
        return f"the release of instance {self.instance_uuid}"

    def send(self, client: Client) -> Json | None:
        return client.unset_allocation(self.instance_uuid, self.generation)

    def settle(self, client: Client) -> Json | None:
        found = watching.find_allocation(client, self.instance_uuid)
        if found is not None and found["status"] != Status.RELEASING:
            raise Unsettled
        return found

    def poller(self, client: Client, answer: Json) -> Callable[[], Progress]:
        return Releases(client, {self.instance_uuid}, generation=answer["generation"]).poll

    def fields(self, answer: Json | None, progress: Progress | None) -> dict[str, Any]:
        if answer is None or _is_released(progress):
            return {"instance_uuid": self.instance_uuid, "status": RELEASED}
        return columns.of_fields(_latest(answer, progress))


@dataclass(frozen=True, slots=True)
class ApplyMap(_OfMap):
    """Request the allocations of a map.

    :ivar dropped: the UUIDs of the instances that are no longer in it.
    """

    requested: Mapping[str, Any]
    generation: int | None
    dropped: Collection[str] = ()

    @property
    def what(self) -> str:
        return f"the map {self.name}"

    def send(self, client: Client) -> Json | None:
        return client.apply_map(self.name, self.requested, self.generation)

    def settle(self, client: Client) -> Json | None:
        found = watching.find_map(client, self.name)
        there = {each["instance_uuid"]: each for each in found["allocations"]} if found else {}
        same = there.keys() == self.requested.keys() and all(
            is_same(there[uuid].get("allocation"), requested)
            for uuid, requested in self.requested.items()
        )
        if found is None or found.get("deleting") or not same:
            raise Unsettled
        return _without_allocations(found)

    def poller(self, client: Client, answer: Json) -> Callable[[], Progress]:
        releases = watching.dropped_releases(client, self.dropped)
        return MapPlacement(client, answer, self.requested, releases).poll

    def fields(self, answer: Json | None, progress: Progress | None) -> dict[str, Any]:
        shown = dict(answer or {})
        if progress is None:
            return columns.of_map(shown)
        if progress.replaced:
            return columns.of_map(shown | {"status": REPLACED, "message": progress.replaced})
        shown |= {
            "counts": counts(progress.allocations),
            "not_applied": columns.not_applied(progress.allocations),
        }
        if progress.releasing:
            shown["not_released"] = columns.Outcomes([*progress.releasing])
        return columns.of_map(shown)


@dataclass(frozen=True, slots=True)
class DeleteMap(_OfMap):
    """Release all instances of a map.

    :ivar members: their UUIDs.
    """

    generation: int | None
    members: Collection[str] = ()

    @property
    def what(self) -> str:
        return f"the deletion of the map {self.name}"

    def send(self, client: Client) -> Json | None:
        return client.delete_map(self.name, self.generation)

    def settle(self, client: Client) -> Json | None:
        found = watching.find_map(client, self.name)
        if found is not None and not found.get("deleting"):
            raise Unsettled
        return None if found is None else _without_allocations(found)

    def poller(self, client: Client, answer: Json) -> Callable[[], Progress]:
        return watching.map_releases(client, self.name, self.members).poll

    def fields(self, answer: Json | None, progress: Progress | None) -> dict[str, Any]:
        if answer is None or _is_released(progress):
            return {"name": self.name, "status": RELEASED}
        shown = dict(answer)
        if progress is not None and progress.replaced:
            shown |= {"status": REPLACED, "message": progress.replaced}
        elif progress is not None:
            shown["not_released"] = columns.Outcomes([*progress.releasing])
        return columns.of_map(shown)


def _without_allocations(answer: Json) -> dict[str, Any]:
    """Return the answer of GET in the form of the answers of PUT and DELETE."""
    return {name: each for name, each in answer.items() if name not in ("allocations", "counts")}


def _is_released(progress: Progress | None) -> bool:
    return progress is not None and not progress.replaced and not progress.releasing


def _latest(answer: Json, progress: Progress | None) -> dict[str, Any]:
    """Return the last answer about the request for an instance."""
    if progress is None:
        return dict(answer)
    if progress.replaced:
        return {**answer, "status": REPLACED, "message": progress.replaced}
    return dict(next(iter((*progress.allocations, *progress.releasing)), answer))
