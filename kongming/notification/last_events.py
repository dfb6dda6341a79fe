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

"""What was heard of one instance, as far as the order of what comes next depends on it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
import json

from kongming.executor.store.residence import Place
from kongming.notification.event import InstanceEvent

# Of so many publishers, and so many of the last messages: those of one operation are fewer.
_PUBLISHERS = 8
_MESSAGES = 16


@dataclass(slots=True)
class Heard:
    """What was heard of an instance. Times are in seconds since the epoch.

    :ivar sent: when the newest message of each publisher was sent, by its own clock but not
        later than it came, and how much later it was dated.
    :ivar messages: the last messages, by their identity.
    :ivar words: the newest word that the instance is at each place: whose, and when it was
        sent. Of an answer of Nova's API the publisher is empty, and the time that of the question.
    :ivar deleted: whether it was said to be deleted: then it never comes back.
    :ivar answered_at: when the last question was put that Nova has answered; 0 if none was.
    :ivar heard_at: when the last event came, by our monotonic clock.
    :ivar last_sent: when that was sent.
    """

    sent: dict[str, tuple[float, float]] = field(default_factory=dict)
    messages: deque[str] = field(default_factory=lambda: deque(maxlen=_MESSAGES))
    words: dict[Place, tuple[str, float]] = field(default_factory=dict)
    deleted: bool = False
    answered_at: float = 0.0
    heard_at: float = 0.0
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
        """Note what a publisher says.

        :param ahead_s: by how much later than now it is dated.
        :param deleted: whether it says that the instance is deleted.
        """
        self.sent.pop(publisher, None)
        self.sent[publisher] = sent_at, ahead_s
        self.last_sent = sent_at
        if len(self.sent) > _PUBLISHERS:
            del self.sent[next(iter(self.sent))]
        if sent_at >= self.words.get(place, ("", 0.0))[1]:
            self.words[place] = (publisher, sent_at)
        self.deleted = self.deleted or deleted

    def set_forward(self, seconds: float) -> None:
        """Take it that our clock was set forward: what seemed to be ahead of it was less so."""
        for publisher, (sent_at, ahead_s) in self.sent.items():
            moved = min(seconds, ahead_s)
            self.sent[publisher] = sent_at + moved, ahead_s - moved

    def forget_words_to_come(self, now: float) -> None:
        """Forget what was said in a time to come by our clock: it was set back since."""
        self.words = {place: word for place, word in self.words.items() if word[1] <= now}

    def late_by(self, event: InstanceEvent, now: float) -> float:
        """Return by how much an event is older than the newest of its publisher; 0 if it is not.

        A clock that is still ahead of ours is compared with itself. What one that was ahead
        has dated is worth nothing once it is right; nor is what came in a time to come by our
        clock, which was set back since.
        """
        newest, ahead_s = self.sent.get(event.publisher, (event.sent_at, event.ahead_s))
        late_s = newest - event.sent_at if newest <= now else 0.0
        if event.ahead_s:
            late_s = max(late_s, newest + ahead_s - event.dated_at)
        return max(late_s, 0.0)

    def ahead_of(self, publisher: str, sent_at: float, now: float) -> tuple[str, float]:
        """Return which other publisher has dated something latest, and by how much later.

        :returns: nobody and 0 if none has.
        """
        others = [
            (at, other)
            for other, (at, _ahead_s) in self.sent.items()
            if other != publisher and sent_at < at <= now
        ]
        latest, other = max(others, default=(sent_at, ""))
        return other, latest - sent_at

    def contradicts(self, publisher: str, sent_at: float, place: Place, now: float) -> bool:
        """Tell whether it may be another place's word that is the newer one."""
        if self.deleted and place is Place.HERE:
            return True
        return any(
            other != publisher and sent_at < at <= now
            for there, (other, at) in self.words.items()
            if there is not place
        )

    def dump(self) -> str:
        """Write what is worth keeping across a restart; :func:`load` reads it."""
        return json.dumps([self.sent, list(self.messages), self.words, self.deleted])


def load(text: str) -> Heard | None:
    """Read what :meth:`Heard.dump` wrote; None if it can't be read."""
    try:
        sent, messages, words, deleted = json.loads(text)
        heard = Heard(
            {str(each): (float(at), float(ahead_s)) for each, (at, ahead_s) in sent.items()},
            words={Place(place): (str(who), float(at)) for place, (who, at) in words.items()},
            deleted=bool(deleted),
        )
        heard.messages.extend(map(str, messages))
    except (ValueError, TypeError, AttributeError):
        return None
    return heard
