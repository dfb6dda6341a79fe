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

"""The order of events: an older event must not undo a newer one.

RabbitMQ delivers unacknowledged messages again, perhaps behind newer ones. Times are compared
within one publisher only, as no two machines have the same clock. Events of two publishers, and
answers of Nova's API, count in the order of arrival.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
import time

from kongming.executor.store.residence import Place
from kongming.notification.event import InstanceEvent
from kongming.notification.event_store import EventStore
from kongming.notification.last_events import LastEvents
from kongming.notification.meaning import DELETED
from kongming.runtime.clock import Steps, since_boot

#: Smaller differences between clocks, in seconds, are not reported.
SKEW_S = 1.0

# One host has fewer instances, and after so long none of their messages is on its way.
_MOST = 4096
_KEEP_S = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment by both clocks of this host: in seconds since the epoch, and monotonic."""

    wall: float
    monotonic: float

    @classmethod
    def now(cls) -> Moment:
        return cls(time.time(), time.monotonic())


@dataclass(frozen=True, slots=True)
class Verdict:
    """The relation of an event to the earlier events of its instance.

    :ivar late: whether to ignore it: it arrived before, or its publisher has sent a newer one.
    :ivar late_s: the seconds by which it is older than that newer one; 0 if it arrived before.
    :ivar outdated: whether it was sent before a request that Nova's API has answered since.
    :ivar behind: the other publisher with the latest date; empty if none has a later one.
    :ivar behind_s: the seconds by which this event is older.
    :ivar doubtful: whether it reports another place than the last one, and it is not certain
        which report is newer.
    :ivar needs_lookup: whether to look the instance up in Nova, if that is configured.
    """

    late: bool = False
    late_s: float = 0.0
    outdated: bool = False
    behind: str = ""
    behind_s: float = 0.0
    doubtful: bool = False
    needs_lookup: bool = False


class Order:
    """The last events of each instance of this host.

    Less is kept of instances without a record, as there are many: an event that names this host
    must not bring back an instance that a newer event reported elsewhere.

    Times in the future of this host's clock do not count: the clock was set back since.

    :param store: keeps the last events across a restart.
    :param clock: returns the time in seconds since the epoch.
    :param steady: returns monotonic seconds.
    """

    def __init__(
        self,
        store: EventStore | None = None,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = since_boot,
    ) -> None:
        self._store = store
        self._clock = clock
        self._steps = Steps(clock, steady)
        self._here: OrderedDict[str, LastEvents] = OrderedDict()
        self._elsewhere: OrderedDict[str, tuple[str, float, Place, bool]] = OrderedDict()
        if store is not None:
            self._here.update(store.load(clock() - _KEEP_S))

    def has_record(self, instance_uuid: str) -> bool:
        """Return whether an event of the instance was noted as an event of this host."""
        return instance_uuid in self._here

    def judge(self, event: InstanceEvent, place: Place) -> Verdict:
        """Compare an event with the earlier ones, without noting it.

        :param place: where the event reports the instance.
        """
        moved = self._steps.take()
        if moved > 0:
            for each in self._here.values():
                each.set_forward(moved)
        last = self._last(event.instance_uuid)
        if last is None:
            return Verdict()
        if event.message_id and event.message_id in last.messages:
            return Verdict(late=True)
        now = self._clock()
        late_s = last.late_by(event, now)
        if late_s:
            return Verdict(late=True, late_s=late_s, needs_lookup=late_s > SKEW_S)
        behind, behind_s = last.ahead_of(event.publisher, event.sent_at, now)
        outdated = event.sent_at < last.answered_at <= now
        unsure = last.answered_at > 0 and event.ahead_s > SKEW_S
        return Verdict(
            outdated=outdated,
            behind=behind,
            behind_s=behind_s,
            doubtful=last.contradicts(event.publisher, event.sent_at, place, now),
            needs_lookup=outdated or unsure or behind_s > SKEW_S,
        )

    def last_sent_since(self, instance_uuid: str, moment: Moment) -> float | None:
        """Return when the last event was sent, if it arrived after a moment; else None."""
        last = self._here.get(instance_uuid)
        if last is None or last.received_at <= moment.monotonic:
            return None
        return last.last_sent

    def note(self, event: InstanceEvent, place: Place) -> None:
        """Note an event that was handled."""
        last = self._last(event.instance_uuid) or LastEvents()
        deleted = event.name == DELETED
        last.forget_future_places(self._clock())
        last.note(event.publisher, event.sent_at, place, ahead_s=event.ahead_s, deleted=deleted)
        last.received_at = time.monotonic()
        if event.message_id:
            last.messages.append(event.message_id)
        self._keep(event.instance_uuid, last)
        if self._store is not None:
            self._store.save(event.instance_uuid, last)

    def note_elsewhere(self, event: InstanceEvent, place: Place) -> None:
        """Note where an instance without a record is; the newest report counts."""
        instance_uuid, elsewhere = event.instance_uuid, self._elsewhere
        report, deleted = (event.publisher, event.sent_at, place), event.name == DELETED
        if before := elsewhere.pop(instance_uuid, None):
            report = before[:3] if event.sent_at < before[1] <= self._clock() else report
            deleted = deleted or before[3]
        elsewhere[instance_uuid] = (*report, deleted)
        if len(elsewhere) > _MOST:
            elsewhere.popitem(last=False)

    def note_answer(self, instance_uuid: str, moment: Moment, place: Place) -> None:
        """Note an answer of Nova's API.

        :param moment: when the request was sent.
        """
        last = self._last(instance_uuid) or LastEvents()
        # Reports from before the request do not count any more.
        last.places = {place: ("", moment.wall)}
        last.answered_at = moment.wall
        last.deleted = last.deleted and place is not Place.HERE
        self._keep(instance_uuid, last)

    def forget_times(self, publisher: str) -> None:
        """Forget the dates of a publisher whose clock was set back."""
        for instance_uuid, last in self._here.items():
            if last.sent.pop(publisher, None) is None:
                continue
            last.places = {
                place: (by, 0.0 if by == publisher else at)
                for place, (by, at) in last.places.items()
            }
            if self._store is not None:
                self._store.save(instance_uuid, last)

    def _last(self, instance_uuid: str) -> LastEvents | None:
        last = self._here.get(instance_uuid)
        if last is not None or instance_uuid not in self._elsewhere:
            return last
        publisher, sent_at, place, deleted = self._elsewhere[instance_uuid]
        last = LastEvents()
        last.note(publisher, sent_at, place, deleted=deleted)
        return last

    def _keep(self, instance_uuid: str, last: LastEvents) -> None:
        self._here[instance_uuid] = last
        self._here.move_to_end(instance_uuid)
        self._elsewhere.pop(instance_uuid, None)
        if len(self._here) > _MOST:
            oldest, _last = self._here.popitem(last=False)
            if self._store is not None:
                self._store.forget(oldest)
