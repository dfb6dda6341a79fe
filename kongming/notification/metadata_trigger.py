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

"""Requests from metadata: events and answers of Nova's API, passed to the executor in order."""

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
from kongming.notification.missed_events import MissedEvents
from kongming.notification.order import Moment, Order, Verdict
from kongming.notification.publisher_clocks import PlacedEvent, PublisherClocks

LOG = logging.getLogger(__name__)

_PLAIN = re.compile(r"[A-Za-z0-9_.:-]{1,255}")


class MetadataTrigger:
    """Passes the newest request and place of each instance to the executor.

    :param look_up: requests a lookup of an instance in Nova; returns whether that is possible.
        Raises StoreUnavailable if the lookup can't be stored.
    """

    def __init__(
        self,
        executor: Executor,
        order: Order | None = None,
        look_up: Callable[[str], bool] = lambda _instance_uuid: False,
    ) -> None:
        self._executor = executor
        self._order = order or Order()
        self._look_up = look_up
        self._clocks = PublisherClocks()
        self._missed_events = MissedEvents()
        self._lock = threading.Lock()

    def has_record(self, instance_uuid: str) -> bool:
        """Return whether the instance has a record here, or had events lately."""
        return self._executor.has_record(instance_uuid) or self._order.has_record(instance_uuid)

    def note_elsewhere(self, event: InstanceEvent, place: Place) -> None:
        """Note an event that shows an instance without a record elsewhere, or nowhere."""
        with self._lock:
            self._order.note_elsewhere(event, place)
            self._catch_up(event.publisher, self._clocks.check_foreign(event, place))

    def handle(self, event: InstanceEvent, place: Place) -> bool:
        """Handle an event with metadata; its request is on disk on return.

        :param place: where the event reports the instance.
        :returns: whether it was the newest.
        :raises StoreUnavailable: if the request can't be stored; handle the event again.
        """
        self._missed_events.note_event(event.instance_uuid)
        with self._lock:
            verdict = self._order.judge(event, place)
            if self._catch_up(event.publisher, self._clocks.check(event, place, verdict)):
                verdict = self._order.judge(event, place)
            if verdict.late:
                if verdict.needs_lookup:
                    self._look_up(event.instance_uuid)
                return False
            self._apply(event, place, verdict)
        return True

    def handle_answer(
        self,
        instance_uuid: str,
        place: Place,
        found: Mapping[str, Any],
        source: str,
        moment: Moment,
        host: str = "",
        *,
        announced: bool = True,
    ) -> None:
        """Handle an answer of Nova's API, unless an event was sent after the request.

        If an event arrived after the request, the instance is looked up again: it is not certain
        which of them Nova knew.

        :param place: where the instance is.
        :param found: its metadata; unused if it is not on this host.
        :param source: the source of the answer, for the operator.
        :param moment: when the request was sent.
        :param host: the other host that it is on.
        :param announced: whether an event led to the request.
        :raises StoreUnavailable: if the result can't be stored; look the instance up again.
        """
        if announced:
            self._missed_events.note_event(instance_uuid)
        self._missed_events.warn()
        with self._lock:
            sent_at = self._order.last_sent_since(instance_uuid, moment)
            if sent_at is not None:
                LOG.debug(
                    "Instance %s: an event came before Nova's answer; asking Nova again",
                    instance_uuid,
                )
                self._look_up(instance_uuid)
            if sent_at is not None and sent_at >= moment.wall:
                return
            if place is Place.HERE:
                had_record = self._executor.has_record(instance_uuid)
                changed = self._request(instance_uuid, found, source, time.time())
                if changed and had_record and not announced:
                    self._missed_events.note_edit(instance_uuid)
            hint = Hint(place, _plain(host), source, time.time(), from_api=True)
            self._executor.set_hint(instance_uuid, hint)
            self._order.note_answer(instance_uuid, moment, place)

    def _catch_up(self, publisher: str, ignored: list[PlacedEvent] | None) -> bool:
        """Apply events that were ignored as late, if their publisher's clock was set back.

        :returns: whether it was.
        """
        if ignored is None:
            return False
        self._order.forget_times(publisher)
        for event, place in ignored:
            self._apply(event, place, self._order.judge(event, place))
        return True

    def _apply(self, event: InstanceEvent, place: Place, verdict: Verdict) -> None:
        """Pass an event that is not late to the executor."""
        instance_uuid = event.instance_uuid
        looked_up = verdict.needs_lookup and self._look_up(instance_uuid)
        if looked_up and verdict.outdated:
            LOG.debug(
                "Instance %s: %s is older than Nova's answer; asking Nova again",
                instance_uuid,
                event.name,
            )
            return
        if place is Place.HERE:
            source = f"user {event.user_id} ({event.name})" if event.user_id else event.name
            self._request(instance_uuid, event.metadata, source, event.sent_at)
        host = _plain(named_host(event)) if place is Place.ELSEWHERE else ""
        source = f"{_plain(event.name)} of {_plain(event.publisher)}"
        hint = Hint(place, host, source, time.time(), verdict.doubtful)
        self._executor.set_hint(instance_uuid, hint)
        self._order.note(event, place)

    def _request(
        self, instance_uuid: str, found: Mapping[str, Any], source: str, at: float
    ) -> bool:
        request = Request(Source.METADATA, _parse(found), source, at)
        return self._executor.request(instance_uuid, request)


def _plain(name: str) -> str:
    """Return a name for the log: characters that no host's name has are escaped."""
    return name if not name or _PLAIN.fullmatch(name) else shown(name)


def _parse(found: Mapping[str, Any]) -> Allocation | exception.Refused:
    try:
        return metadata.parse(found)
    except exception.Refused as refusal:
        return refusal
