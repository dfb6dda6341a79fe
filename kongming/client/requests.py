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

"""Requests: sending, and settling if the answer is lost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kongming.allocation.statuses import Status
from kongming.client import watching
from kongming.client.progress import Json, by_instance, is_same
from kongming.client.responses import Fault, OutcomeUnknown
from kongming.client.rest import Client


class Unsettled(Exception):
    """The request is not in force: not yet, or it was not accepted."""


class Request(Protocol):
    """A request that changes desired allocations."""

    @property
    def what(self) -> str:
        """A description of the request for people."""

    def send(self, client: Client) -> Json | None:
        """Send it, and return the answer of the API; None if it is complete.

        :raises Fault: if it was refused, or if that is unknown.
        """

    def settle(self, client: Client) -> Json | None:
        """Return the lost answer of :meth:`send`, if the request is in force.

        :raises Unsettled: if it is not.
        :raises Fault: if the API gives no answer.
        """


def send(
    request: Request, client: Client, settling: Client, report: Callable[[str], None]
) -> Json | None:
    """Send a request, and return the answer that accepts it; None if it is complete.

    :param settling: finds out whether the request was accepted if its answer got lost.
    :param report: is called with one line for people if it was accepted nevertheless.
    :raises OutcomeUnknown: if that can't be found out.
    :raises Fault: if it was refused.
    """
    try:
        return request.send(client)
    except Fault as fault:
        if not fault.outcome_unknown:
            raise
        lost = fault
    try:
        answer = request.settle(settling)
    except (Fault, Unsettled):
        raise OutcomeUnknown(
            f"{lost}; {unknown(request)}", status=lost.status_code, code=lost.code
        ) from lost
    report(f"{lost}; {request.what} was accepted nevertheless")
    return answer


def unknown(request: Request) -> str:
    """Return a message about a request with an unknown outcome."""
    return f"it is not known whether {request.what} was or will be accepted"


@dataclass(frozen=True, slots=True)
class SetAllocation:
    """Request an allocation for an instance."""

    instance_uuid: str
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


@dataclass(frozen=True, slots=True)
class UnsetAllocation:
    """Release an instance."""

    instance_uuid: str
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


@dataclass(frozen=True, slots=True)
class ApplyMap:
    """Request the allocations of a map.

    :ivar dropped: the UUIDs of the instances that are no longer in it.
    """

    name: str
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
        there = by_instance(found)
        same = there.keys() == self.requested.keys() and all(
            is_same(there[uuid].get("allocation"), requested)
            for uuid, requested in self.requested.items()
        )
        if found is None or found.get("deleting") or not same:
            raise Unsettled
        return _without_allocations(found)


@dataclass(frozen=True, slots=True)
class DeleteMap:
    """Release all instances of a map."""

    name: str
    generation: int | None

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


def _without_allocations(answer: Json) -> dict[str, Any]:
    """Return the answer of GET in the form of the answers of PUT and DELETE."""
    return {name: each for name, each in answer.items() if name not in ("allocations", "counts")}
