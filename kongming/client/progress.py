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
"""The progress of a request, from the status of its instances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kongming.allocation import stored
from kongming.allocation.statuses import Status
from kongming.allocation.stored import Unreadable
from kongming.allocation.text import lines
from kongming.runtime.escaping import escape

Json = Mapping[str, Any]
Allocations = Sequence[Json]

#: The request is stored, but an operator's request on the host overrides it.
OVERRIDDEN = "overridden"
#: The server was deleted in Nova meanwhile.
GONE = Status.GONE.value

_OF_API = (None, "", "api")


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a request.

    :ivar allocations: as returned by the API, without those that are being released.
    :ivar releasing: those that are being released.
    :ivar text: the progress for people.
    :ivar replaced: a description of the request that replaced it; empty while it is in force.
    """

    allocations: Allocations
    text: str
    releasing: Allocations = ()
    replaced: str = ""

    @property
    def open(self) -> bool:
        """Whether hosts are still working on it."""
        return bool(self.releasing) or not all(_is_settled(each) for each in self.allocations)

    @property
    def absent(self) -> bool:
        """Whether some of its guests do not run."""
        return bool(self.waiting)

    @property
    def undone(self) -> Allocations:
        """The allocations that are not in force, without those of absent guests."""
        undone = [
            each
            for each in self.allocations
            if not is_in_force(each) and status_of(each) != Status.ABSENT
        ]
        return [*undone, *self.releasing]

    @property
    def waiting(self) -> Allocations:
        """The allocations of absent guests, which are placed when they start."""
        return [each for each in self.allocations if each["status"] == Status.ABSENT]


def status_of(found: Json) -> str:
    """Return the status of a request of the API.

    A host reports the status of the request in force. That may be another one: an operator's
    request on the host has priority there.
    """
    status: str = found["status"]
    is_own = not _is_settled(found) or found.get("source") in _OF_API
    return status if is_own else OVERRIDDEN


def not_in_force(allocations: Allocations) -> Allocations:
    """Return the allocations that are not in force."""
    return [each for each in allocations if not is_in_force(each)]


def is_same(found: object, requested: object) -> bool:
    """Return whether two allocations in JSON are the same, in whichever form."""
    return found == requested or (
        found is not None and stored.understand(found) == stored.understand(requested)
    )


def is_in_force(found: Json) -> bool:
    """Return whether the whole request is in force, and not overridden."""
    status = _parse(status_of(found))
    return status is not None and status.is_in_force


def in_one_line(allocation: Any) -> str:
    """Return an allocation in JSON as one line of text; None is one that can't be read."""
    if allocation is None:
        return "(can't be read)"
    found = stored.understand(allocation)
    if isinstance(found, Unreadable):
        # A newer API may know more than this client.
        return escape(found.text)
    return escape("; ".join(lines(found)) or "(nothing)")


def by_instance(found: Json | None) -> dict[str, Json]:
    """Return the entries of a map by UUID; none if there is no map."""
    return {each["instance_uuid"]: each for each in found["allocations"]} if found else {}


def allocations_of(found: Json) -> dict[str, Any]:
    """Return the allocations of a map by UUID, without the instances that are being released."""
    return {
        each["instance_uuid"]: each.get("allocation")
        for each in found["allocations"]
        if each["status"] != Status.RELEASING
    }


def counts(allocations: Allocations) -> dict[str, int]:
    """Count the allocations of each status."""
    return dict(sorted(Counter(status_of(each) for each in allocations).items()))


def placed(allocations: Allocations) -> str:
    """Return the number of allocations of each status, for people."""
    found = counts(allocations)
    text = f"{found.pop(Status.APPLIED, 0)} of {len(allocations)} applied"
    others = ", ".join(f"{number} {status}" for status, number in found.items())
    unresponsive = {
        _host(each)
        for each in allocations
        if not _is_settled(each) and each.get("host_state") == "unresponsive"
    }
    if unresponsive:
        others += f"; unresponsive: {', '.join(sorted(unresponsive))}"
    return f"{text} ({others})" if others else text


def describe(found: Json) -> str:
    """Return the status of an allocation with its host and reason, for people."""
    host, status = _host(found), status_of(found)
    where = f" on {host}" if host else ""
    text = f"{found['instance_uuid']}{where}: {status}"
    if status == OVERRIDDEN:
        return (
            f"{text}: on the host, the request of the {found['source']} has priority; this one "
            "follows when it is withdrawn"
        )
    if status == GONE:
        text += ": the server was deleted in Nova"
    elif found.get("reason"):
        text += f" ({found['reason']}): {found.get('message', '')}"
    elif status == Status.ABSENT:
        text += ": the guest does not run; it is placed when it starts"
    return text if _is_settled(found) else text + _unresponsive(found)


def _is_settled(found: Json) -> bool:
    status = _parse(found["status"])
    return status is None or status.is_settled


def _parse(status: str) -> Status | None:
    """Return a status; None for one of a newer API, and for ``overridden``."""
    try:
        return Status(status)
    except ValueError:
        return None


def _host(found: Json) -> str:
    """Return the host of an instance; empty if it has none."""
    return found.get("host") or found.get("reported_by") or ""


def _unresponsive(found: Json) -> str:
    if found.get("host_state") == "unresponsive":
        return f"; the executor of {_host(found)} is unresponsive"
    if found.get("host_state") == "unknown":
        return "; no executor that has it has reported yet"
    return ""
