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

"""What is wanted, as events and Nova's answers tell it: handed to the executor in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import logging
import re
import threading
import time
from typing import Any

from kongming import exception
from kongming.allocation import metadata
from kongming.allocation.allocation import Allocation
from kongming.allocation.cpuset import shown
from kongming.allocation.request import Request, Source
from kongming.executor.executor import Executor
from kongming.executor.store.residence import Hint, Place
from kongming.notification.event import InstanceEvent
from kongming.notification.meaning import named_host
from kongming.notification.missed_events import Unheard
from kongming.notification.order import Moment, Order, Verdict
from kongming.notification.publisher_clocks import Publishers, Said

LOG = logging.getLogger(__name__)

_PLAIN = re.compile(r"[A-Za-z0-9_.:-]{1,255}")


class Wanted:
    """Keeps the newest word on each instance of this host.

    :param ask: has Nova asked about an instance, and tells whether it can be asked; it
        raises StoreUnavailable if that could not be kept.
    """

    def __init__(
        self,
        executor: Executor,
        order: Order | None = None,
        ask: Callable[[str], bool] = lambda _instance_uuid: False,
    ) -> None:
        self._executor = executor
        self._order = order or Order()
        self._ask = ask
        self._publishers = Publishers()
        self._unheard = Unheard()
        self._lock = threading.Lock()

    def knows(self, instance_uuid: str) -> bool:
        """Tell whether anything is known of an instance, or was lately."""
        return self._executor.holds(instance_uuid) or self._order.knows(instance_uuid)

    def is_elsewhere(self, event: InstanceEvent, place: Place) -> None:
        """Take an event that says that an instance that nothing is known of is not here."""
        with self._lock:
            self._order.note_elsewhere(event, place)
            self._catch_up(event.publisher, self._publishers.hear_of_others(event, place))

    def hear(self, event: InstanceEvent, place: Place) -> bool:
        """Take an event that carries the metadata; what it asks for is on disk on return.

        :param place: where it says that the instance is.
        :returns: whether it was the newest.
        :raises StoreUnavailable: if it could not be kept: try again.
        """
        self._unheard.heard(event.instance_uuid)
        with self._lock:
            verdict = self._order.judge(event, place)
            if self._catch_up(event.publisher, self._publishers.watch(event, place, verdict)):
                verdict = self._order.judge(event, place)
            if verdict.late:
                if verdict.ask:
                    self._ask(event.instance_uuid)
                return False
            self._take(event, place, verdict)
        return True

    def learn(
        self,
        instance_uuid: str,
        place: Place,
        found: Mapping[str, Any],
        by: str,
        put: Moment,
        host: str = "",
        *,
        announced: bool = True,
    ) -> None:
        """Take Nova's answer, unless an event was sent since the question was put.

        If any event came since then Nova is asked anew: which of them it knew is not certain.

        :param place: where the instance is.
        :param found: its metadata; of no consequence if it is not on this host.
        :param by: what led to the question.
        :param put: when it was put.
        :param host: where else it is.
        :param announced: whether an event led to the question.
        :raises StoreUnavailable: if it could not be kept: ask again.
        """
        if announced:
            self._unheard.heard(instance_uuid)
        self._unheard.tell()
        with self._lock:
            sent_at = self._order.heard_since(instance_uuid, put)
            if sent_at is not None:
                LOG.debug(
                    "Instance %s: an event came before Nova's answer; asking Nova again",
                    instance_uuid,
                )
                self._ask(instance_uuid)
            if sent_at is not None and sent_at >= put.wall:
                return
            if place is Place.HERE:
                was_known = self._executor.holds(instance_uuid)
                changed = self._request(instance_uuid, found, by, time.time())
                if changed and was_known and not announced:
                    self._unheard.found(instance_uuid)
            hint = Hint(place, _plain(host), by, time.time(), answered=True)
            self._executor.locate(instance_uuid, hint)
            self._order.note_answer(instance_uuid, put, place)

    def _catch_up(self, publisher: str, missed: list[Said] | None) -> bool:
        """Take what was left out as late, if its publisher's clock was set back; tell if so."""
        if missed is None:
            return False
        self._order.forget_times(publisher)
        for event, place in missed:
            self._take(event, place, self._order.judge(event, place))
        return True

    def _take(self, event: InstanceEvent, place: Place, verdict: Verdict) -> None:
        """Take an event that is not late."""
        instance_uuid = event.instance_uuid
        asked = verdict.ask and self._ask(instance_uuid)
        if asked and verdict.outdated:
            LOG.debug(
                "Instance %s: %s is older than Nova's answer; asking Nova again",
                instance_uuid,
                event.name,
            )
            return
        if place is Place.HERE:
            by = f"user {event.user_id} ({event.name})" if event.user_id else event.name
            self._request(instance_uuid, event.metadata, by, event.sent_at)
        host = _plain(named_host(event)) if place is Place.ELSEWHERE else ""
        said_by = f"{_plain(event.name)} of {_plain(event.publisher)}"
        hint = Hint(place, host, said_by, time.time(), verdict.doubtful)
        self._executor.locate(instance_uuid, hint)
        self._order.note(event, place)

    def _request(self, instance_uuid: str, found: Mapping[str, Any], by: str, at: float) -> bool:
        return self._executor.ask(instance_uuid, Request(Source.METADATA, _asked(found), by, at))


def _plain(name: str) -> str:
    """Return a name as it may be shown: what no name of a host has is escaped."""
    return name if not name or _PLAIN.fullmatch(name) else shown(name)


def _asked(found: Mapping[str, Any]) -> Allocation | exception.Refused:
    try:
        return metadata.parse(found)
    except exception.Refused as refusal:
        return refusal
