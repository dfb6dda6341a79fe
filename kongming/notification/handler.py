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

"""The trigger: what a notification says is wanted is handed to the executor.

It stores and returns; all work on guests is done elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
import logging
import re
import time
from typing import Any

from kongming import exception, metadata
from kongming.allocation import Allocation
from kongming.executor.executor import Executor
from kongming.executor.request import Request, Source
from kongming.notification import event as events
from kongming.notification.meaning import Meaning, meaning
from kongming.notification.order import Order

LOG = logging.getLogger(__name__)

# Names come from outside: what is kept of them must not grow without end.
_KINDS_MAX = 200
_KIND = re.compile(r"instance\.[a-z0-9_.]{1,80}")
_OTHER = "other"


class Handler:
    """Handles the notifications that one host hears.

    :ivar counts: how many messages there were of each kind: ``ours``,
        ``foreign`` (nothing to do with this host), ``late`` (a newer one of
        the same instance came before) and ``malformed``.
    :ivar kinds: how many there were by event name and outcome, of those that
        are ``ours`` or ``late``; names beyond a number count as ``other``.
    """

    def __init__(self, host: str, executor: Executor) -> None:
        self._host = host
        self._executor = executor
        self._order = Order()
        self.counts: Counter[str] = Counter()
        self.kinds: Counter[tuple[str, str]] = Counter()

    def handle(self, message: Mapping[str, Any]) -> None:
        """Handle one message; what it asks for is on disk on return.

        :raises StoreUnavailable: if it could not be kept: try again.
        """
        event = _read(message)
        if isinstance(event, exception.EventMalformed):
            self.malformed(str(event))
            return
        what = Meaning.NOTHING if event is None else meaning(event, self._host)
        if event is None or what is Meaning.NOTHING:
            self.counts["foreign"] += 1
        elif self._is_nothing_to_us(event, what):
            self._order.note_elsewhere(event.instance_uuid, event.sent_at)
            self.counts["foreign"] += 1
        elif self._order.is_late(event.instance_uuid, event.sent_at):
            self._count(event.name, "late")
            LOG.debug("Instance %s: %s comes late, left out", event.instance_uuid, event.name)
        else:
            self._take(event, what)
            self._order.note(event.instance_uuid, event.sent_at)
            self._count(event.name, "ours")

    def malformed(self, why: str) -> None:
        """Count and tell of a message that can't be understood.

        The message itself is never shown: it holds auth tokens.
        """
        self.counts["malformed"] += 1
        LOG.warning(
            "A notification can't be understood: %s; left out (%d so far). Is something else "
            "than Nova publishing to this exchange and topic?",
            why,
            self.counts["malformed"],
        )

    def _count(self, name: str, outcome: str) -> None:
        kind = (name, outcome)
        if kind not in self.kinds and (len(self.kinds) >= _KINDS_MAX or not _KIND.fullmatch(name)):
            kind = (_OTHER, outcome)
        self.kinds[kind] += 1
        self.counts[outcome] += 1

    def _is_nothing_to_us(self, event: events.InstanceEvent, what: Meaning) -> bool:
        return what is Meaning.GONE and not (
            self._executor.holds(event.instance_uuid) or self._order.knows(event.instance_uuid)
        )

    def _take(self, event: events.InstanceEvent, what: Meaning) -> None:
        if what is Meaning.GONE:
            LOG.debug("Instance %s: %s, now on %s", event.instance_uuid, event.name, event.host)
            self._executor.let_go(event.instance_uuid)
            return
        begin = time.monotonic()
        asked_by = f"user {event.user_id} ({event.name})" if event.user_id else event.name
        request = Request(Source.METADATA, _asked(event), asked_by, event.sent_at)
        self._executor.ask(event.instance_uuid, request)
        LOG.debug(
            "Instance %s: %s handled in %.1f ms",
            event.instance_uuid,
            event.name,
            1000 * (time.monotonic() - begin),
        )


# Errors are given back, not raised: oslo.log would say them a second time in
# whatever is logged while an exception is handled.


def _read(message: Mapping[str, Any]) -> events.InstanceEvent | exception.EventMalformed | None:
    try:
        return events.read(message)
    except exception.EventMalformed as error:
        return error


def _asked(event: events.InstanceEvent) -> Allocation | exception.Refused:
    try:
        return metadata.parse(event.metadata)
    except exception.Refused as refusal:
        return refusal
