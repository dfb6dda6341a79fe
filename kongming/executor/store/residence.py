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

"""Whether an instance is on this host, and what to do with its record.

libvirt shows what runs here. What Nova reports, by an event or an answer of its API, is a hint:
it counts only where libvirt does not contradict it.
"""

from __future__ import annotations

from dataclasses import dataclass
import enum


class Place(enum.StrEnum):
    """Where Nova reports an instance."""

    HERE = "here"
    ELSEWHERE = "elsewhere"
    NOWHERE = "nowhere"


class Presence(enum.Enum):
    """What libvirt has of an instance.

    There is none while libvirt is unavailable: then nothing is decided.
    """

    RUNS = "a running domain"
    OFF = "a domain that is defined, but does not run"
    ABSENT = "no domain"
    MIGRATED = "no domain: libvirt has migrated it to another host"


class LocalState(enum.Enum):
    """What this host has of an instance."""

    REQUEST = "a record with a request of any source, accepted or not"
    RETURNING = "a record without a request: it has not yet returned to its baseline"
    OWN_BASELINE = "no record, but the domain has a baseline that this host's store wrote"
    FOREIGN_BASELINE = "no record, but the domain has a baseline that another store wrote"
    NOTHING = "nothing"


class Action(enum.Enum):
    """What to do with an instance."""

    KEEP = "carry out the request, now or when the guest runs"
    CLAIM = "carry out the request, though Nova reports that the guest is not here"
    FORGET = "delete its record"
    RELEASE = "return the guest to its baseline"
    IGNORE = "do nothing"


@dataclass(frozen=True, slots=True)
class Hint:
    """Nova's last report of where an instance is.

    :ivar host: the host that it names; empty if none.
    :ivar reported_by: the event and its publisher, or Nova's API, for the operator.
    :ivar reported_at: when it was first reported, in seconds since the epoch.
    :ivar uncertain: whether another report contradicts this one, and it is unknown which of
        them is newer.
    :ivar from_api: whether Nova's API reported it, rather than an event.
    """

    place: Place
    host: str = ""
    reported_by: str = ""
    reported_at: float = 0.0
    uncertain: bool = False
    from_api: bool = False

    def agrees_with(self, other: Hint | None) -> bool:
        """Return whether another hint has the same place, whatever its time and source."""
        return other is not None and (
            (self.place, self.host, self.uncertain) == (other.place, other.host, other.uncertain)
        )

    def __str__(self) -> str:
        where = {
            Place.HERE: "it is here",
            Place.ELSEWHERE: f"it is on {self.host}" if self.host else "it has left this host",
            Place.NOWHERE: "it is on no host",
        }[self.place]
        return f"{where} ({self.reported_by})" if self.reported_by else where


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with an instance, and whether to look up its location in Nova."""

    action: Action
    lookup: bool = False


def decide(presence: Presence, hint: Hint | None, state: LocalState) -> Decision:
    """Decide about an instance; doc/source/contributor/architecture.rst has the table.

    :param hint: None if Nova has not reported where it is. For an instance without a record,
        *here* means that Nova reports no request for it.
    """
    if state in (LocalState.NOTHING, LocalState.OWN_BASELINE, LocalState.FOREIGN_BASELINE):
        return _of_unknown(presence, hint, state)
    if presence is Presence.MIGRATED:
        return Decision(Action.FORGET)
    if hint is None:
        return Decision(Action.KEEP)
    if hint.uncertain:
        # It is unknown which report is newer: libvirt alone decides.
        absent = presence is Presence.ABSENT
        return Decision(Action.FORGET if absent else Action.KEEP, lookup=True)
    if hint.place is Place.HERE:
        return Decision(Action.KEEP)
    if presence is Presence.RUNS:
        if state is LocalState.RETURNING:
            return Decision(Action.KEEP)
        return Decision(Action.CLAIM, lookup=not hint.from_api)
    if presence is Presence.OFF and hint.place is Place.ELSEWHERE:
        # It may be a resize that is reverted, or a wrong name. If it left, it is undefined.
        return Decision(Action.KEEP)
    return Decision(Action.FORGET)


def _of_unknown(presence: Presence, hint: Hint | None, state: LocalState) -> Decision:
    """Decide about an instance without a record."""
    if presence is not Presence.RUNS or state is LocalState.NOTHING:
        return Decision(Action.IGNORE)
    if hint is not None and hint.place is Place.HERE:
        return Decision(Action.RELEASE)
    # This store has released its own baselines; only another store knows why it wrote one.
    own = state is LocalState.OWN_BASELINE
    return Decision(Action.RELEASE if own else Action.IGNORE, lookup=True)
