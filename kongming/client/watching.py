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
"""Polling of a request's progress, and of another request that has replaced it.

A request is recognized by its generation. Another generation is a request of another user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kongming.allocation.statuses import Status
from kongming.client.progress import (
    GONE,
    Json,
    Progress,
    by_instance,
    in_one_line,
    is_same,
    placed,
)
from kongming.client.responses import Fault
from kongming.client.rest import Client
from kongming.exception import AllocationUnknown, MapUnknown


def find_allocation(client: Client, instance_uuid: str) -> dict[str, Any] | None:
    """Read the allocation of an instance; None if it has none."""
    return _unless(AllocationUnknown.reason, lambda: client.allocation(instance_uuid))


def find_map(client: Client, name: str) -> dict[str, Any] | None:
    """Read an allocation map; None if there is none."""
    return _unless(MapUnknown.reason, lambda: client.map(name))


@dataclass(frozen=True, slots=True)
class Placement:
    """The accepted request for one instance.

    :ivar answer: the answer that accepted it.
    """

    client: Client
    answer: Json

    def poll(self) -> Progress:
        """Return the progress of the request.

        :raises Fault: if the API gives no answer.
        """
        uuid, generation = self.answer["instance_uuid"], self.answer["generation"]
        found = find_allocation(self.client, uuid)
        if (
            found is not None
            and found["generation"] == generation
            and found["status"] != Status.RELEASING
        ):
            return Progress([found], placed([found]))
        replaced = _replacement(self.client, uuid, generation)
        return Progress([], "0 of 1 applied", replaced=replaced)


@dataclass(slots=True)
class Releases:
    """Instances that are being released.

    :ivar pending: the UUIDs of the instances that are not released yet.
    :ivar listed: reads many of them at once, by UUID; those that it omits are read alone.
    :ivar generation: the generation of the release; None if unknown.
    :ivar may_be_taken: whether another user's request for one of them is no replacement.
    :ivar released: the number of released instances.
    :ivar taken: the number of instances with a request of another user.
    """

    client: Client
    pending: set[str]
    listed: Callable[[], Mapping[str, Json]] = dict
    generation: int | None = None
    may_be_taken: bool = False
    released: int = 0
    taken: int = 0

    def poll(self) -> Progress:
        """Return the progress of the releases.

        :raises Fault: if the API gives no answer.
        """
        releasing: list[Json] = []
        listed = self.listed() if self.pending else {}
        for uuid in sorted(self.pending):
            found = listed.get(uuid)
            if found is None or found["status"] != Status.RELEASING:
                found = find_allocation(self.client, uuid)
            if found is None:
                self.pending.discard(uuid)
                self.released += 1
            elif self._is_releasing(found):
                releasing.append(found)
            elif self.may_be_taken:
                self.pending.discard(uuid)
                self.taken += 1
            else:
                generation = self.generation or found["generation"] - 1
                replaced = f"instance {uuid}: {_replacement(self.client, uuid, generation)}"
                return Progress([], self.text, releasing, replaced)
        return Progress([], self.text, releasing)

    @property
    def total(self) -> int:
        """The number of instances, released or not."""
        return len(self.pending) + self.released + self.taken

    @property
    def text(self) -> str:
        """The progress for people."""
        text = f"{self.released} of {self.total} released"
        return f"{text} ({self.taken} taken over)" if self.taken else text

    def _is_releasing(self, found: Json) -> bool:
        is_same_request = self.generation in (None, found["generation"])
        return bool(found["status"] == Status.RELEASING and is_same_request)


@dataclass(frozen=True, slots=True)
class MapPlacement:
    """The accepted request for a map.

    :ivar answer: the answer that accepted it.
    :ivar requested: the requested allocations, by UUID.
    :ivar releases: the instances that are no longer in the map.
    """

    client: Client
    answer: Json
    requested: Mapping[str, Any]
    releases: Releases

    def poll(self) -> Progress:
        """Return the progress of the request.

        :raises Fault: if the API gives no answer.
        """
        name, generation = self.answer["name"], self.answer["generation"]
        current = find_map(self.client, name)
        if current is None or not is_same_map(current, self.answer):
            return Progress([], f"map {name}", replaced=self._replacement(current))
        found = by_instance(current)
        # An instance that left the map without a request was deleted in Nova.
        gone = {"status": GONE, "host_state": "", "generation": generation}
        mapped = [
            found.get(uuid, {**gone, "instance_uuid": uuid}) for uuid in sorted(self.requested)
        ]
        text, releases = placed(mapped), self.releases.poll()
        if self.releases.total:
            text += f", {releases.text}"
        return Progress(mapped, text, releases.releasing, releases.replaced)

    def _replacement(self, current: Json | None) -> str:
        """Describe how another request has changed the map."""
        found = by_instance(current)
        requested = self.requested
        dropped = [
            uuid for uuid in requested if uuid not in found or found[uuid]["allocation"] is None
        ]
        changed = [
            uuid
            for uuid in requested.keys() - set(dropped)
            if not is_same(found[uuid]["allocation"], requested[uuid])
        ]
        added = sorted(found.keys() - requested.keys())
        numbers = {"changed": changed, "released": dropped, "added": added}
        text = ", ".join(f"{len(each)} {what}" for what, each in numbers.items() if each)
        if current is None:
            text = f"the map was deleted; {text}"
        elif current.get("deleting"):
            text = f"generation {current['generation']} deletes the map; {text}"
        else:
            text = f"by generation {current['generation']}; {text or 'with the same allocations'}"
        for uuid in sorted(changed) + sorted(dropped) + added:
            after = found.get(uuid, {}).get("generation", 1) - 1
            return f"{text}; instance {uuid}: {_replacement(self.client, uuid, after)}"
        return text


def is_same_map(current: Json, answer: Json) -> bool:
    """Return whether a map is unchanged since a request: a recreated map begins with 1 again."""
    names = ("generation", "created_at", "deleting")
    return all(current.get(name) == answer.get(name) for name in names)


def map_releases(client: Client, name: str, members: Iterable[str]) -> Releases:
    """Return the releases of all members of a map."""

    def listed() -> Mapping[str, Json]:
        return by_instance(find_map(client, name))

    return Releases(client, set(members), listed)


@dataclass(slots=True)
class MapDeletion:
    """The accepted deletion of a map.

    :ivar answer: the answer that accepted it.
    """

    client: Client
    answer: Json
    _releases: Releases | None = None

    def poll(self) -> Progress:
        """Return the progress of the releases of its members.

        :raises Fault: if the API gives no answer.
        """
        if self._releases is None:
            name = self.answer["name"]
            current = find_map(self.client, name)
            if current is None:
                return Progress([], "the map is deleted")
            if not is_same_map(current, self.answer):
                replaced = f"the map has generation {current['generation']}"
                return Progress([], f"map {name}", replaced=replaced)
            members = (each["instance_uuid"] for each in current["allocations"])
            self._releases = map_releases(self.client, name, members)
        return self._releases.poll()


def dropped_releases(client: Client, members: Iterable[str]) -> Releases:
    """Return the releases of instances that are in no map any more."""

    def listed() -> Mapping[str, Json]:
        return {
            each["instance_uuid"]: each for each in client.allocations(status=Status.RELEASING)
        }

    return Releases(client, set(members), listed, may_be_taken=True)


def _replacement(client: Client, instance_uuid: str, generation: int) -> str:
    """Describe the last request for an instance after a generation, and its requester."""
    try:
        changes = list(client.history(instance_uuid))
    except Fault:
        # The policy may allow this user to set allocations, but not to read the history.
        return "another request is in force"
    if changes and changes[-1].get("status") == GONE:
        return "the server was deleted in Nova"
    later = [each for each in changes if each["generation"] > generation]
    if not later:
        return "another request is in force"
    # Entries without a requester are later outcomes; tenants do not see requesters.
    change = next((each for each in reversed(later) if each.get("requested_by")), later[-1])
    requested = change.get("allocation")
    what = "its release" if requested is None else in_one_line(requested)
    of_map = f" in the map {change['map']}" if change.get("map") else ""
    requester = change.get("requested_by") or "another user"
    return f"{requester} requested generation {change['generation']}{of_map}: {what}"


def _unless(code: str, read: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return read()
    except Fault as fault:
        # A 404 of a proxy does not mean that the resource is absent.
        if fault.code != code:
            raise
        return None
