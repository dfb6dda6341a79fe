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
"""Requests of commands: following and showing them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

from kongming.allocation.statuses import Status
from kongming.client import requests, watching
from kongming.client.progress import Json, Progress, counts
from kongming.client.rest import Client
from kongming.client.watching import MapPlacement, Placement, Releases
from kongming.osc import columns

RELEASED = Status.RELEASED.value
REPLACED = "replaced"


class Request(requests.Request, Protocol):
    """A request of a command."""

    @property
    def shown_by(self) -> str:
        """The command that shows its outcome."""

    def poller(self, client: Client, answer: Json) -> Callable[[], Progress]:
        """Return a function that reads the progress of the accepted request."""

    def fields(self, answer: Json | None, progress: Progress | None) -> dict[str, Any]:
        """Return the request as columns.

        :param answer: the answer that accepted it; None if it is complete.
        :param progress: the last progress that was read; None if none was.
        """


class SetAllocation(requests.SetAllocation):
    """Request an allocation for an instance."""

    @property
    def shown_by(self) -> str:
        return _shown_by("allocation", self.instance_uuid)

    def poller(self, client: Client, answer: Json) -> Callable[[], Progress]:
        return Placement(client, answer).poll

    def fields(self, answer: Json | None, progress: Progress | None) -> dict[str, Any]:
        return columns.of_fields(_latest(answer or {}, progress))


class UnsetAllocation(requests.UnsetAllocation):
    """Release an instance."""

    @property
    def shown_by(self) -> str:
        return _shown_by("allocation", self.instance_uuid)

    def poller(self, client: Client, answer: Json) -> Callable[[], Progress]:
        return Releases(client, {self.instance_uuid}, generation=answer["generation"]).poll

    def fields(self, answer: Json | None, progress: Progress | None) -> dict[str, Any]:
        if answer is None or _is_released(progress):
            return {"instance_uuid": self.instance_uuid, "status": RELEASED}
        return columns.of_fields(_latest(answer, progress))


@dataclass(frozen=True, slots=True)
class UnsetAllocations:
    """Several instances whose release was accepted.

    :ivar pending: the UUIDs of those that hosts have to release.
    """

    instance_uuids: Collection[str]
    pending: Collection[str]

    def poller(self, client: Client) -> Callable[[], Progress]:
        """Return a function that reads the progress of the releases."""
        return Releases(client, set(self.pending)).poll

    def fields(self, progress: Progress | None) -> dict[str, Any]:
        """Return the releases as columns."""
        shown: dict[str, Any] = {"instances": columns.Instances([*self.instance_uuids])}
        if not self.pending or _is_released(progress):
            return shown | {"status": RELEASED}
        if progress is None:
            return shown | {"status": Status.RELEASING.value}
        if progress.replaced:
            return shown | {"status": REPLACED, "message": progress.replaced}
        left = columns.Outcomes([*progress.releasing])
        return shown | {"status": Status.RELEASING.value, "not_released": left}


class ApplyMap(requests.ApplyMap):
    """Request the allocations of a map."""

    @property
    def shown_by(self) -> str:
        return _shown_by("allocation map", self.name)

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
class DeleteMap(requests.DeleteMap):
    """Release all instances of a map.

    :ivar members: their UUIDs.
    """

    members: Collection[str] = ()

    @property
    def shown_by(self) -> str:
        return _shown_by("allocation map", self.name)

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


def _shown_by(kind: str, name: str) -> str:
    return f"openstack kongming {kind} show {name}"


def _is_released(progress: Progress | None) -> bool:
    return progress is not None and not progress.replaced and not progress.releasing


def _latest(answer: Json, progress: Progress | None) -> dict[str, Any]:
    """Return the last answer about the request for an instance."""
    if progress is None:
        return dict(answer)
    if progress.replaced:
        return {**answer, "status": REPLACED, "message": progress.replaced}
    return dict(next(iter((*progress.allocations, *progress.releasing)), answer))
