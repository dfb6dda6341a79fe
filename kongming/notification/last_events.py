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

"""The last events of one instance, as far as the order of the next ones depends on them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
import json

from kongming.executor.store.residence import Place
from kongming.notification.event import InstanceEvent

# The publishers and messages to remember; one operation has fewer.
_PUBLISHERS = 8
_MESSAGES = 16


@dataclass(slots=True)
class LastEvents:
    """The last events of an instance. Times are in seconds since the epoch.

    :ivar sent: for each publisher, when its newest message was sent, by its own clock but not
        later than it arrived, and how many seconds later it was dated.
    :ivar messages: the ids of the last messages.
    :ivar places: for each place, who reported last that the instance is there, and when that was
        sent. For an answer of Nova's API the publisher is empty, and the time that of the request.
    :ivar deleted: whether an event reported it deleted: then it never comes back.
    :ivar answered_at: when the last request was sent that Nova's API has answered; 0 if none was.
    :ivar received_at: when the last event arrived, by the monotonic clock of this host.
    :ivar last_sent: when that event was sent.
    """

    sent: dict[str, tuple[float, float]] = field(default_factory=dict)
    messages: deque[str] = field(default_factory=lambda: deque(maxlen=_MESSAGES))
    places: dict[Place, tuple[str, float]] = field(default_factory=dict)
    deleted: bool = False
    answered_at: float = 0.0
    received_at: float = 0.0
    last_sent: float = 0.0

    def note(
        self,
        publisher: str,
        sent_at: float,
        place: Place,
        *,
        ahead_s: float = 0.0,
        deleted: bool = False,
    ) -> None:
        """Add an event.

        :param ahead_s: by how many seconds it is dated in the future.
        :param deleted: whether it reports the instance deleted.
        """
        self.sent.pop(publisher, None)
        self.sent[publisher] = sent_at, ahead_s
        self.last_sent = sent_at
        if len(self.sent) > _PUBLISHERS:
            del self.sent[next(iter(self.sent))]
        if sent_at >= self.places.get(place, ("", 0.0))[1]:
            self.places[place] = (publisher, sent_at)
        self.deleted = self.deleted or deleted

    def set_forward(self, seconds: float) -> None:
        """Correct the times after this host's clock was set forward: they were less ahead."""
        for publisher, (sent_at, ahead_s) in self.sent.items():
            moved = min(seconds, ahead_s)
            self.sent[publisher] = sent_at + moved, ahead_s - moved

    def forget_future_places(self, now: float) -> None:
        """Forget places with a time in the future: this host's clock was set back since."""
        self.places = {place: by for place, by in self.places.items() if by[1] <= now}

    def late_by(self, event: InstanceEvent, now: float) -> float:
        """Return the seconds by which an event is older than the newest of its publisher, or 0.

        A clock that is still ahead of this host's is compared with itself. Dates of a clock that
        was ahead do not count once it is right, and neither do times in the future of this
        host's clock, which was set back since.
        """
        newest, ahead_s = self.sent.get(event.publisher, (event.sent_at, event.ahead_s))
        late_s = newest - event.sent_at if newest <= now else 0.0
        if event.ahead_s:
            late_s = max(late_s, newest + ahead_s - event.dated_at)
        return max(late_s, 0.0)

    def ahead_of(self, publisher: str, sent_at: float, now: float) -> tuple[str, float]:
        """Return the other publisher with the latest date, and the seconds it is later.

        :returns: an empty name and 0 if there is none.
        """
        others = [
            (at, other)
            for other, (at, _ahead_s) in self.sent.items()
            if other != publisher and sent_at < at <= now
        ]
        latest, other = max(others, default=(sent_at, ""))
        return other, latest - sent_at

    def contradicts(self, publisher: str, sent_at: float, place: Place, now: float) -> bool:
        """Return whether the report of another place may be newer than this one."""
        if self.deleted and place is Place.HERE:
            return True
        return any(
            other != publisher and sent_at < at <= now
            for there, (other, at) in self.places.items()
            if there is not place
        )

    def dump(self) -> str:
        """Return the part that is kept across a restart, as JSON; :func:`load` reads it."""
        return json.dumps([self.sent, list(self.messages), self.places, self.deleted])


def load(text: str) -> LastEvents | None:
    """Read the result of :meth:`LastEvents.dump`; return None if it can't be read."""
    try:
        sent, messages, places, deleted = json.loads(text)
        last = LastEvents(
            {str(each): (float(at), float(ahead_s)) for each, (at, ahead_s) in sent.items()},
            places={Place(place): (str(by), float(at)) for place, (by, at) in places.items()},
            deleted=bool(deleted),
        )
        last.messages.extend(map(str, messages))
    except (ValueError, TypeError, AttributeError):
        return None
    return last
