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

"""Whether an instance is on this host, and what becomes of what is kept of it.

libvirt says what runs here. What Nova says, by an event or by an answer of its API, is a
hint: it counts only where libvirt does not contradict it.
"""

from __future__ import annotations

from dataclasses import dataclass
import enum


class Place(enum.StrEnum):
    """Where an instance is, by Nova."""

    HERE = "here"
    ELSEWHERE = "elsewhere"
    NOWHERE = "nowhere"


class Presence(enum.Enum):
    """What libvirt has of an instance.

    That libvirt can't be asked is no presence: nothing is decided then.
    """

    RUNS = "a running domain"
    OFF = "a domain that is defined, but does not run"
    GONE = "no domain"
    MIGRATED = "no domain: libvirt has migrated it to another host"


class Kept(enum.Enum):
    """What is kept of an instance here."""

    REQUEST = "a request of any source, accepted or not"
    RETURNING = "nothing is requested any more, and it is not yet at its baseline"
    OWN_NOTE = "nothing, but the domain has a baseline that this host's store wrote"
    FOREIGN_NOTE = "nothing, but the domain has a baseline that another store wrote"
    NOTHING = "nothing"


class Fate(enum.Enum):
    """What becomes of an instance."""

    KEPT = "the request is kept and carried out, now or when the guest runs"
    CLAIMED = "the request is kept and carried out, though Nova reports that the guest is not here"
    FORGOTTEN = "its record is forgotten"
    RELEASED = "the guest goes back to its baseline"
    LEFT = "nothing is done"


@dataclass(frozen=True, slots=True)
class Hint:
    """What Nova last said of where an instance is.

    :ivar host: the host that it named; empty if none.
    :ivar said_by: the event and its publisher, or Nova's API, for the operator to read.
    :ivar said_at: when it was said first, in seconds since the epoch.
    :ivar doubtful: whether another word on it contradicts this one, and it is not certain
        which of them is the newer.
    :ivar answered: whether Nova's API said so, rather than an event.
    """

    place: Place
    host: str = ""
    said_by: str = ""
    said_at: float = 0.0
    doubtful: bool = False
    answered: bool = False

    def says_the_same(self, other: Hint | None) -> bool:
        """Tell whether another hint says nothing else, whenever and by whomever it was said."""
        return other is not None and (
            (self.place, self.host, self.doubtful) == (other.place, other.host, other.doubtful)
        )

    def __str__(self) -> str:
        where = {
            Place.HERE: "it is here",
            Place.ELSEWHERE: f"it is on {self.host}" if self.host else "it has left this host",
            Place.NOWHERE: "it is on no host",
        }[self.place]
        return f"{where} ({self.said_by})" if self.said_by else where


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of an instance, and whether Nova is to be asked where it is."""

    fate: Fate
    ask: bool = False


def decide(presence: Presence, hint: Hint | None, kept: Kept) -> Decision:
    """Decide what becomes of an instance; doc/source/contributor/architecture.rst has the table.

    :param hint: None if Nova has said nothing of where it is. Of an instance that nothing is
        kept of, that it is here means that Nova says so and that nothing is requested for it.
    """
    if kept in (Kept.NOTHING, Kept.OWN_NOTE, Kept.FOREIGN_NOTE):
        return _of_unknown(presence, hint, kept)
    if presence is Presence.MIGRATED:
        return Decision(Fate.FORGOTTEN)
    if hint is None:
        return Decision(Fate.KEPT)
    if hint.doubtful:
        # Which word is the newer one is not known: libvirt alone decides.
        gone = presence is Presence.GONE
        return Decision(Fate.FORGOTTEN if gone else Fate.KEPT, ask=True)
    if hint.place is Place.HERE:
        return Decision(Fate.KEPT)
    if presence is Presence.RUNS:
        if kept is Kept.RETURNING:
            return Decision(Fate.KEPT)
        return Decision(Fate.CLAIMED, ask=not hint.answered)
    if presence is Presence.OFF and hint.place is Place.ELSEWHERE:
        # It may be a resize that is reverted, or a wrong name. Undefined, it is gone.
        return Decision(Fate.KEPT)
    return Decision(Fate.FORGOTTEN)


def _of_unknown(presence: Presence, hint: Hint | None, kept: Kept) -> Decision:
    """Decide on an instance that nothing is kept of."""
    if presence is not Presence.RUNS or kept is Kept.NOTHING:
        return Decision(Fate.LEFT)
    if hint is not None and hint.place is Place.HERE:
        return Decision(Fate.RELEASED)
    # What this store wrote it has released since; what another one wrote, that one knows.
    own = kept is Kept.OWN_NOTE
    return Decision(Fate.RELEASED if own else Fate.LEFT, ask=True)
