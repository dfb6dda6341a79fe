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
"""Reading how far one's own request is, and which other one has replaced it.

A request is recognised by its generation. The status of another generation is
that of somebody else's request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kongming.allocation.statuses import Status
from kongming.exception import AllocationUnknown, MapUnknown
from kongming.osc.client import Client
from kongming.osc.columns import Wanted
from kongming.osc.progress import GONE, Progress, Told, is_same, placed
from kongming.osc.responses import Fault

_RELEASING = Status.RELEASING.value


def find_allocation(client: Client, instance_uuid: str) -> dict[str, Any] | None:
    """Read the allocation of an instance; None if it has none."""
    return _unless(AllocationUnknown.reason, lambda: client.allocation(instance_uuid))


def find_map(client: Client, name: str) -> dict[str, Any] | None:
    """Read an allocation map; None if there is none."""
    return _unless(MapUnknown.reason, lambda: client.map(name))


@dataclass(frozen=True, slots=True)
class Placement:
    """The allocation of one instance, as it was accepted.

    :ivar told: the answer that accepted it.
    """

    client: Client
    told: Told

    def look(self) -> Progress:
        """Read how far it is.

        :raises Fault: if the API can't say.
        """
        uuid, mine = self.told["instance_uuid"], self.told["generation"]
        seen = find_allocation(self.client, uuid)
        if seen is not None and seen["generation"] == mine and seen["status"] != _RELEASING:
            return Progress([seen], placed([seen]))
        return Progress([], "0 of 1 applied", replaced=_replacement(self.client, uuid, mine))


@dataclass(slots=True)
class Releases:
    """Instances that go back to their baseline.

    :ivar pending: the UUIDs of those that have not been seen to be back.
    :ivar listed: reads many of them at once, by UUID; those that it leaves out are read alone.
    :ivar generation: of the release; None if it is not known.
    :ivar may_be_taken: whether somebody else may request something for them meanwhile.
    :ivar released: how many have been seen to be back.
    :ivar taken: for how many somebody else has requested something.
    """

    client: Client
    pending: set[str]
    listed: Callable[[], Mapping[str, Told]] = dict
    generation: int | None = None
    may_be_taken: bool = False
    released: int = 0
    taken: int = 0

    def look(self) -> Progress:
        """Read which ones are not back yet.

        :raises Fault: if the API can't say.
        """
        left: list[Told] = []
        listed = self.listed() if self.pending else {}
        for uuid in sorted(self.pending):
            told = listed.get(uuid)
            if told is None or told["status"] != _RELEASING:
                told = find_allocation(self.client, uuid)
            if told is None:
                self.pending.discard(uuid)
                self.released += 1
            elif self._is_mine(told):
                left.append(told)
            elif self.may_be_taken:
                self.pending.discard(uuid)
                self.taken += 1
            else:
                mine = self.generation or told["generation"] - 1
                who = f"instance {uuid}: {_replacement(self.client, uuid, mine)}"
                return Progress([], self.text, left, who)
        return Progress([], self.text, left)

    @property
    def total(self) -> int:
        """How many there are and were."""
        return len(self.pending) + self.released + self.taken

    @property
    def text(self) -> str:
        """How far they are, for people."""
        text = f"{self.released} of {self.total} released"
        return f"{text} ({self.taken} taken over)" if self.taken else text

    def _is_mine(self, told: Told) -> bool:
        known = self.generation in (None, told["generation"])
        return bool(told["status"] == _RELEASING and known)


@dataclass(frozen=True, slots=True)
class MapPlacement:
    """The allocations of a map, as it was accepted.

    :ivar told: the answer that accepted it.
    :ivar asked: the requested allocations, by UUID.
    :ivar releases: those that belonged to the map before, and don't any more.
    """

    client: Client
    told: Told
    asked: Mapping[str, Any]
    releases: Releases

    def look(self) -> Progress:
        """Read how far they are.

        :raises Fault: if the API can't say.
        """
        name, mine = self.told["name"], self.told["generation"]
        seen = find_map(self.client, name)
        if seen is None or not is_same_map(seen, self.told):
            return Progress([], f"map {name}", replaced=self._replacement(seen))
        found = {each["instance_uuid"]: each for each in seen["allocations"]}
        # What has left the map without a request was deleted in Nova.
        gone = {"status": GONE, "host_state": "", "generation": mine}
        mapped = [found.get(uuid, {**gone, "instance_uuid": uuid}) for uuid in sorted(self.asked)]
        text, left = placed(mapped), self.releases.look()
        if self.releases.total:
            text += f", {left.text}"
        return Progress(mapped, text, left.releasing, left.replaced)

    def _replacement(self, seen: Told | None) -> str:
        """Return what another request has made of the map."""
        found = {each["instance_uuid"]: each for each in seen["allocations"]} if seen else {}
        asked = self.asked
        dropped = [
            uuid for uuid in asked if uuid not in found or found[uuid]["allocation"] is None
        ]
        changed = [
            uuid
            for uuid in asked.keys() - set(dropped)
            if not is_same(found[uuid]["allocation"], asked[uuid])
        ]
        added = sorted(found.keys() - asked.keys())
        numbers = {"changed": changed, "released": dropped, "added": added}
        text = ", ".join(f"{len(each)} {what}" for what, each in numbers.items() if each)
        if seen is None:
            text = f"the map was deleted; {text}"
        elif seen.get("deleting"):
            text = f"generation {seen['generation']} deletes the map; {text}"
        else:
            text = f"by generation {seen['generation']}; {text or 'with the same allocations'}"
        for uuid in sorted(changed) + sorted(dropped) + added:
            after = found.get(uuid, {}).get("generation", 1) - 1
            return f"{text}; instance {uuid}: {_replacement(self.client, uuid, after)}"
        return text


def is_same_map(seen: Told, told: Told) -> bool:
    """Tell whether a map is as a request left it: one that was made anew begins with 1 again."""
    names = ("generation", "created_at", "deleting")
    return all(seen.get(name) == told.get(name) for name in names)


def map_releases(client: Client, name: str, members: Iterable[str]) -> Releases:
    """Return the releases of all members of a map."""

    def listed() -> Mapping[str, Told]:
        seen = find_map(client, name)
        return {each["instance_uuid"]: each for each in seen["allocations"]} if seen else {}

    return Releases(client, set(members), listed)


def dropped_releases(client: Client, members: Iterable[str]) -> Releases:
    """Return the releases of instances that belong to no map any more."""

    def listed() -> Mapping[str, Told]:
        return {each["instance_uuid"]: each for each in client.allocations(status=_RELEASING)}

    return Releases(client, set(members), listed, may_be_taken=True)


def _replacement(client: Client, instance_uuid: str, mine: int) -> str:
    """Return who made the last request for an instance after a generation, and for what."""
    try:
        changes = list(client.history(instance_uuid))
    except Fault:
        # Who may set allocations need not be allowed to read who else does.
        return "another request is in force"
    if changes and changes[-1].get("status") == GONE:
        return "the server was deleted in Nova"
    later = [each for each in changes if each["generation"] > mine]
    if not later:
        return "another request is in force"
    # Entries without a requester are later outcomes; tenants are not told who it is.
    change = next((each for each in reversed(later) if each.get("requested_by")), later[-1])
    asked = change.get("allocation")
    what = "its release" if asked is None else Wanted(asked).human_readable().replace("\n", "; ")
    of_map = f" in the map {change['map']}" if change.get("map") else ""
    who = change.get("requested_by") or "another user"
    return f"{who} requested generation {change['generation']}{of_map}: {what}"


def _unless(code: str, read: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return read()
    except Fault as fault:
        # A proxy's 404 says nothing of what there is.
        if fault.code != code:
            raise
        return None
