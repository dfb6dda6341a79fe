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
"""How far a request has come, read from the status of its instances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kongming.allocation import stored
from kongming.allocation.statuses import Status

Told = Mapping[str, Any]
Allocations = Sequence[Told]

#: The host knows the request, but carries out what was set on the host itself.
OVERRIDDEN = "overridden"
#: The server was deleted in Nova meanwhile.
GONE = Status.GONE.value

# Those that the hosts are still working on.
_OPEN = frozenset({Status.PENDING.value, Status.RELEASING.value})
_DONE, _ABSENT = Status.APPLIED.value, Status.ABSENT.value
_OURS = (None, "", "api")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a request has come.

    :ivar allocations: as the API shows them, without those that are being released.
    :ivar releasing: those that are on their way back to their baseline.
    :ivar text: how far it is, for people.
    :ivar replaced: by what the request was replaced; empty as long as it is in force.
    """

    allocations: Allocations
    text: str
    releasing: Allocations = ()
    replaced: str = ""

    @property
    def open(self) -> bool:
        """Whether hosts are still working on it."""
        return bool(self.releasing) or any(each["status"] in _OPEN for each in self.allocations)

    @property
    def absent(self) -> bool:
        """Whether it is done but for guests that do not run."""
        return any(each["status"] == _ABSENT for each in self.allocations)

    @property
    def undone(self) -> Allocations:
        """What was not done, or not yet."""
        settled = (_DONE, _ABSENT)
        mine = [each for each in self.allocations if standing(each) not in settled]
        return [*mine, *self.releasing]

    @property
    def waiting(self) -> Allocations:
        """What is done when its guest starts."""
        return [each for each in self.allocations if each["status"] == _ABSENT]


def standing(told: Told) -> str:
    """Return the status of a request that was made here.

    A host reports the status of the request that it carries out. That may be
    another one: what was set on the host itself has the last word there.
    """
    status: str = told["status"]
    return status if status in _OPEN or told.get("source") in _OURS else OVERRIDDEN


def is_same(told: object, asked: object) -> bool:
    """Return whether the API shows the requested allocation, in whichever form."""
    return told == asked or (
        told is not None and stored.understand(told) == stored.understand(asked)
    )


def counts(allocations: Allocations) -> dict[str, int]:
    """Count the allocations of each status."""
    return dict(sorted(Counter(standing(each) for each in allocations).items()))


def placed(allocations: Allocations) -> str:
    """Return how many allocations there are of each status, for people."""
    found = counts(allocations)
    text = f"{found.pop(_DONE, 0)} of {len(allocations)} applied"
    others = ", ".join(f"{number} {status}" for status, number in found.items())
    unresponsive = {
        _host(each)
        for each in allocations
        if each["status"] in _OPEN and each.get("host_state") == "unresponsive"
    }
    if unresponsive:
        others += f"; unresponsive: {', '.join(sorted(unresponsive))}"
    return f"{text} ({others})" if others else text


def describe(told: Told) -> str:
    """Return the status of an allocation with its host and reason, for people."""
    host, status = _host(told), standing(told)
    where = f" on {host}" if host else ""
    text = f"{told['instance_uuid']}{where}: {status}"
    if status == OVERRIDDEN:
        return (
            f"{text}: on the host, the request of the {told['source']} has priority; this one "
            "follows when it is withdrawn"
        )
    if status == GONE:
        text += ": the server was deleted in Nova"
    elif told.get("reason"):
        text += f" ({told['reason']}): {told.get('message', '')}"
    elif status == _ABSENT:
        text += ": the guest does not run; it is placed when it starts"
    if status in _OPEN:
        text += _silence(told)
    return text


def _host(told: Told) -> str:
    """Return the host that answers for it; empty if none does."""
    return told.get("host") or told.get("reported_by") or ""


def _silence(told: Told) -> str:
    if told.get("host_state") == "unresponsive":
        return f"; the executor of {_host(told)} is unresponsive"
    if told.get("host_state") == "unknown":
        return "; no executor that has it has reported yet"
    return ""
