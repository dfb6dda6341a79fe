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

"""Notifications: each is counted, and an event of this host is passed to the trigger.

On return the result is on disk; other threads place the guests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
import logging
import re
import time
from typing import Any, Protocol

from kongming import exception
from kongming.executor.store.residence import Place
from kongming.notification.event import InstanceEvent
from kongming.notification.meaning import meaning
from kongming.notification.similar_hosts import SimilarHosts
from kongming.runtime.hourly import Hourly

LOG = logging.getLogger(__name__)

# Names come from messages: their number is limited.
_KINDS_MAX = 200
_KIND = re.compile(r"instance\.[a-z0-9_.]{1,80}")
_OTHER = "other"


class Trigger(Protocol):
    """The result of events.

    Each method raises StoreUnavailable if the result can't be stored; handle the event again.
    """

    def has_record(self, instance_uuid: str) -> bool:
        """Return whether an instance that is not here matters."""

    def note_elsewhere(self, event: InstanceEvent, place: Place) -> None:
        """Note an event that shows an instance without a record elsewhere, or nowhere."""

    def handle(self, event: InstanceEvent, place: Place) -> bool:
        """Handle an event that shows where an instance is.

        :returns: whether it was the newest of its instance.
        """


class Handler:
    """Handles the notifications that one host receives.

    :param read: reads a notification; returns None if it is not about an instance.
    :param similar_hosts: checks the names of hosts.

    :ivar counts: the number of messages of each kind: ``own``, ``foreign`` (other hosts only),
        ``late`` (a newer one of the same instance was handled before) and ``malformed``.
    :ivar kinds: the number of ``own`` and ``late`` messages by event name and outcome; beyond
        a number of names the others count as ``other``.
    """

    def __init__(
        self,
        host: str,
        read: Callable[[Mapping[str, Any]], InstanceEvent | None],
        trigger: Trigger,
        similar_hosts: SimilarHosts | None = None,
    ) -> None:
        self._similar_hosts = similar_hosts
        self._host = host
        self._read = read
        self._trigger = trigger
        self.counts: Counter[str] = Counter()
        self.kinds: Counter[tuple[str, str]] = Counter()
        self._hourly = Hourly()
        self._received_at = time.monotonic()

    @property
    def idle_s(self) -> float:
        """The seconds since the last message of any host, or since the start."""
        return time.monotonic() - self._received_at

    def handle(self, message: Mapping[str, Any]) -> None:
        """Handle one message; its request is on disk on return.

        :raises StoreUnavailable: if the request can't be stored; handle the message again.
        """
        self._received_at = time.monotonic()
        try:
            event = self._read(message)
        except exception.EventMalformed as error:
            self.reject(str(error))
            return
        if event is not None and self._similar_hosts is not None:
            self._similar_hosts.check(event)
        place = None if event is None else meaning(event, self._host)
        if event is None or place is None:
            self.counts["foreign"] += 1
        elif place is not Place.HERE and not self._trigger.has_record(event.instance_uuid):
            self._trigger.note_elsewhere(event, place)
            self.counts["foreign"] += 1
        elif self._trigger.handle(event, place):
            self._count(event.name, "own")
            LOG.debug("Instance %s: %s handled", event.instance_uuid, event.name)
        else:
            self._count(event.name, "late")
            LOG.debug(
                "Instance %s: %s arrived late and is ignored", event.instance_uuid, event.name
            )

    def reject(self, reason: str) -> None:
        """Count an unreadable message, and log the first of its kind.

        The message itself is never logged: it contains auth tokens.
        """
        self._received_at = time.monotonic()
        self.counts["malformed"] += 1
        if self._hourly.should_log(reason):
            LOG.warning(
                "Unreadable notification: %s; ignored (%d so far), more of this kind are counted "
                "and not logged. Does anything other than Nova publish to this exchange and "
                "topic?",
                reason,
                self.counts["malformed"],
            )

    def _count(self, name: str, outcome: str) -> None:
        kind = (name, outcome)
        if kind not in self.kinds and (len(self.kinds) >= _KINDS_MAX or not _KIND.fullmatch(name)):
            kind = (_OTHER, outcome)
        self.kinds[kind] += 1
        self.counts[outcome] += 1
