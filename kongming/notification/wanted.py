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

from collections.abc import Mapping
import logging
import threading
import time
from typing import Any

from kongming import exception, metadata
from kongming.allocation import Allocation
from kongming.executor.executor import Executor
from kongming.executor.request import Request, Source
from kongming.notification.event import InstanceEvent
from kongming.notification.order import Order

LOG = logging.getLogger(__name__)


class Wanted:
    """Keeps the newest word on each instance of this host."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._order = Order()
        self._lock = threading.Lock()

    def knows(self, instance_uuid: str) -> bool:
        """Tell whether anything is known of an instance, or was lately."""
        return self._executor.holds(instance_uuid) or self._order.knows(instance_uuid)

    def is_elsewhere(self, event: InstanceEvent) -> None:
        """Take an event that says that an instance that nothing is known of is elsewhere."""
        self._order.note_elsewhere(event.instance_uuid, event.sent_at)

    def hear(self, event: InstanceEvent, *, here: bool) -> bool:
        """Take an event that carries the metadata; what it asks for is on disk on return.

        :param here: whether it says that the instance is on this host.
        :returns: whether it was the newest.
        :raises StoreUnavailable: if it could not be kept: try again.
        """
        instance_uuid = event.instance_uuid
        with self._lock:
            if self._order.is_late(instance_uuid, event.sent_at):
                return False
            if here:
                by = f"user {event.user_id} ({event.name})" if event.user_id else event.name
                self._ask(instance_uuid, event.metadata, by, event.sent_at)
            else:
                self._executor.let_go(instance_uuid)
            self._order.note(instance_uuid, event.sent_at)
        return True

    def learn(
        self, instance_uuid: str, found: Mapping[str, Any] | None, by: str, began: float
    ) -> None:
        """Take Nova's answer, unless an event was heard since the question.

        :param found: the instance's metadata; None if it is not on this host.
        :param by: what led to the question.
        :param began: when it was asked, by the monotonic clock.
        :raises StoreUnavailable: if it could not be kept: ask again.
        """
        with self._lock:
            if self._order.heard_since(instance_uuid, began):
                LOG.debug("Instance %s: an event came before Nova's answer", instance_uuid)
            elif found is None:
                self._executor.let_go(instance_uuid)
            else:
                self._ask(instance_uuid, found, by, time.time())

    def _ask(self, instance_uuid: str, found: Mapping[str, Any], by: str, at: float) -> None:
        self._executor.ask(instance_uuid, Request(Source.METADATA, _asked(found), by, at))


def _asked(found: Mapping[str, Any]) -> Allocation | exception.Refused:
    try:
        return metadata.parse(found)
    except exception.Refused as refusal:
        return refusal
