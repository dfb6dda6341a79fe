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

"""From a notification as it came to what is made of it: counted, and handed on.

What is handed on is on disk on return; all work on guests is done elsewhere.
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
from kongming.notification.similar_hosts import Lookalikes
from kongming.runtime.hourly import Hourly

LOG = logging.getLogger(__name__)

# Names come from outside: what is kept of them must not grow without end.
_KINDS_MAX = 200
_KIND = re.compile(r"instance\.[a-z0-9_.]{1,80}")
_OTHER = "other"


class Trigger(Protocol):
    """What events of this host lead to.

    :raises StoreUnavailable: each, if it could not be kept: try again.
    """

    def knows(self, instance_uuid: str) -> bool:
        """Tell whether it is of any consequence that an instance is not here."""

    def is_elsewhere(self, event: InstanceEvent, place: Place) -> None:
        """Take an event of an instance that is not here, and of no consequence."""

    def hear(self, event: InstanceEvent, place: Place) -> bool:
        """Take an event, which says where the instance is.

        :returns: whether it was the newest of its instance.
        """


class Handler:
    """Handles the notifications that one host hears.

    :param read: reads a notification; None if it is not about an instance.
    :param lookalikes: looks for other names of this host.

    :ivar counts: how many messages there were of each kind: ``own``,
        ``foreign`` (nothing to do with this host), ``late`` (a newer one of
        the same instance came before) and ``malformed``.
    :ivar kinds: how many there were by event name and outcome, of those that
        are ``own`` or ``late``; names beyond a number count as ``other``.
    """

    def __init__(
        self,
        host: str,
        read: Callable[[Mapping[str, Any]], InstanceEvent | None],
        trigger: Trigger,
        lookalikes: Lookalikes | None = None,
    ) -> None:
        self._lookalikes = lookalikes
        self._host = host
        self._read = read
        self._trigger = trigger
        self.counts: Counter[str] = Counter()
        self.kinds: Counter[tuple[str, str]] = Counter()
        self._hourly = Hourly()
        self._heard_at = time.monotonic()

    @property
    def silence_s(self) -> float:
        """Return how many seconds ago the last message of anybody came, or else the start."""
        return time.monotonic() - self._heard_at

    def handle(self, message: Mapping[str, Any]) -> None:
        """Handle one message; what it asks for is on disk on return.

        :raises StoreUnavailable: if it could not be kept: try again.
        """
        self._heard_at = time.monotonic()
        try:
            event = self._read(message)
        except exception.EventMalformed as error:
            self.malformed(str(error))
            return
        if event is not None and self._lookalikes is not None:
            self._lookalikes.look(event)
        place = None if event is None else meaning(event, self._host)
        if event is None or place is None:
            self.counts["foreign"] += 1
        elif place is not Place.HERE and not self._trigger.knows(event.instance_uuid):
            self._trigger.is_elsewhere(event, place)
            self.counts["foreign"] += 1
        elif self._trigger.hear(event, place):
            self._count(event.name, "own")
            LOG.debug("Instance %s: %s handled", event.instance_uuid, event.name)
        else:
            self._count(event.name, "late")
            LOG.debug(
                "Instance %s: %s arrived late and is ignored", event.instance_uuid, event.name
            )

    def malformed(self, why: str) -> None:
        """Count a message that can't be understood, and tell of the first of its kind.

        The message itself is never shown: it holds auth tokens.
        """
        self._heard_at = time.monotonic()
        self.counts["malformed"] += 1
        if self._hourly.is_news(why):
            LOG.warning(
                "Unreadable notification: %s; ignored (%d so far), more of this kind are counted "
                "and not logged. Does anything other than Nova publish to this exchange and "
                "topic?",
                why,
                self.counts["malformed"],
            )

    def _count(self, name: str, outcome: str) -> None:
        kind = (name, outcome)
        if kind not in self.kinds and (len(self.kinds) >= _KINDS_MAX or not _KIND.fullmatch(name)):
            kind = (_OTHER, outcome)
        self.kinds[kind] += 1
        self.counts[outcome] += 1
