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

"""The order of events: an older one must not undo what a newer one said.

A broker delivers again what was not acknowledged, perhaps behind newer ones. Times are compared
within one publisher only, as no two machines have the same clock. Events of two publishers
count in the order in which they arrive, and Nova's answers among them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
import time

from kongming.executor.store.residence import Place
from kongming.notification.event import InstanceEvent
from kongming.notification.event_store import Memory
from kongming.notification.last_events import Heard
from kongming.notification.meaning import DELETED
from kongming.runtime.clock import Steps, since_boot

#: Clocks that differ by less, in seconds, are nothing to be told of.
SKEW_S = 1.0

# Instances of one host are few; of one that was not heard of for so long nothing is on its way.
_MOST = 4096
_KEEP_S = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment by both of our clocks: in seconds since the epoch, and monotonic."""

    wall: float
    monotonic: float

    @classmethod
    def now(cls) -> Moment:
        return cls(time.time(), time.monotonic())


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an event stands to what was heard of its instance before.

    :ivar late: whether it is to be left out: it came before, or its publisher has sent a
        newer one.
    :ivar late_s: by how many seconds it is older than that newer one; 0 if it came before.
    :ivar outdated: whether it was sent before a question that Nova has answered since.
    :ivar behind: the other publisher that has dated something latest; empty if none has
        dated anything later than this.
    :ivar behind_s: by how many seconds this is older.
    :ivar doubtful: whether it says that the instance is at another place than was said last,
        and it is not certain which of them is the newer word.
    :ivar ask: whether Nova is to be asked, if it can be.
    """

    late: bool = False
    late_s: float = 0.0
    outdated: bool = False
    behind: str = ""
    behind_s: float = 0.0
    doubtful: bool = False
    ask: bool = False


class Order:
    """Remembers what was heard of each instance of this host, and when it was sent.

    Of instances that nothing is known of it remembers less, and apart, as there are so many
    of them: an event of ours that is behind one that says "elsewhere" must not bring the
    instance back.

    A remembered time that is still to come by our clock is worth nothing: the clock was set
    back since.

    :param memory: keeps it across a restart.
    :param clock: tells the time, in seconds since the epoch.
    :param steady: seconds that only grow.
    """

    def __init__(
        self,
        memory: Memory | None = None,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = since_boot,
    ) -> None:
        self._memory = memory
        self._clock = clock
        self._steps = Steps(clock, steady)
        self._ours: OrderedDict[str, Heard] = OrderedDict()
        self._elsewhere: OrderedDict[str, tuple[str, float, Place, bool]] = OrderedDict()
        if memory is not None:
            self._ours.update(memory.load(clock() - _KEEP_S))

    def knows(self, instance_uuid: str) -> bool:
        """Tell whether an event of an instance was noted as one of this host's."""
        return instance_uuid in self._ours

    def judge(self, event: InstanceEvent, place: Place) -> Verdict:
        """Say how an event stands to what was heard before; nothing is noted.

        :param place: where it says that the instance is.
        """
        moved = self._steps.take()
        if moved > 0:
            for each in self._ours.values():
                each.set_forward(moved)
        heard = self._heard(event.instance_uuid)
        if heard is None:
            return Verdict()
        if event.message_id and event.message_id in heard.messages:
            return Verdict(late=True)
        now = self._clock()
        late_s = heard.late_by(event, now)
        if late_s:
            return Verdict(late=True, late_s=late_s, ask=late_s > SKEW_S)
        behind, behind_s = heard.ahead_of(event.publisher, event.sent_at, now)
        outdated = event.sent_at < heard.answered_at <= now
        unsure = heard.answered_at > 0 and event.ahead_s > SKEW_S
        return Verdict(
            outdated=outdated,
            behind=behind,
            behind_s=behind_s,
            doubtful=heard.contradicts(event.publisher, event.sent_at, place, now),
            ask=outdated or unsure or behind_s > SKEW_S,
        )

    def heard_since(self, instance_uuid: str, moment: Moment) -> float | None:
        """Return when the last event was sent that was heard since then; None if none was."""
        heard = self._ours.get(instance_uuid)
        if heard is None or heard.heard_at <= moment.monotonic:
            return None
        return heard.last_sent

    def note(self, event: InstanceEvent, place: Place) -> None:
        """Note that an event was handled."""
        heard = self._heard(event.instance_uuid) or Heard()
        deleted = event.name == DELETED
        heard.forget_words_to_come(self._clock())
        heard.note(event.publisher, event.sent_at, place, ahead_s=event.ahead_s, deleted=deleted)
        heard.heard_at = time.monotonic()
        if event.message_id:
            heard.messages.append(event.message_id)
        self._keep(event.instance_uuid, heard)
        if self._memory is not None:
            self._memory.keep(event.instance_uuid, heard)

    def note_elsewhere(self, event: InstanceEvent, place: Place) -> None:
        """Note that an instance that nothing is known of is not here; the newest word counts."""
        instance_uuid, elsewhere = event.instance_uuid, self._elsewhere
        word, deleted = (event.publisher, event.sent_at, place), event.name == DELETED
        if before := elsewhere.pop(instance_uuid, None):
            word = before[:3] if event.sent_at < before[1] <= self._clock() else word
            deleted = deleted or before[3]
        elsewhere[instance_uuid] = (*word, deleted)
        if len(elsewhere) > _MOST:
            elsewhere.popitem(last=False)

    def note_answer(self, instance_uuid: str, moment: Moment, place: Place) -> None:
        """Note what Nova has answered to a question that was put at a moment."""
        heard = self._heard(instance_uuid) or Heard()
        # What was said before the question is of no account any more.
        heard.words = {place: ("", moment.wall)}
        heard.answered_at = moment.wall
        heard.deleted = heard.deleted and place is not Place.HERE
        self._keep(instance_uuid, heard)

    def forget_times(self, publisher: str) -> None:
        """Forget what a publisher has dated: its clock was set back."""
        for instance_uuid, heard in self._ours.items():
            if heard.sent.pop(publisher, None) is None:
                continue
            heard.words = {
                place: (who, 0.0 if who == publisher else at)
                for place, (who, at) in heard.words.items()
            }
            if self._memory is not None:
                self._memory.keep(instance_uuid, heard)

    def _heard(self, instance_uuid: str) -> Heard | None:
        heard = self._ours.get(instance_uuid)
        if heard is not None or instance_uuid not in self._elsewhere:
            return heard
        publisher, sent_at, place, deleted = self._elsewhere[instance_uuid]
        heard = Heard()
        heard.note(publisher, sent_at, place, deleted=deleted)
        return heard

    def _keep(self, instance_uuid: str, heard: Heard) -> None:
        self._ours[instance_uuid] = heard
        self._ours.move_to_end(instance_uuid)
        self._elsewhere.pop(instance_uuid, None)
        if len(self._ours) > _MOST:
            oldest, _heard = self._ours.popitem(last=False)
            if self._memory is not None:
                self._memory.forget(oldest)
