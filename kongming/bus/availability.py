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

"""Whether RabbitMQ can be used: told when it can't, when the reason changes, and when it can."""

from __future__ import annotations

import logging
import threading
import time

from kongming.bus.reasons import UNREACHABLE, Reason

LOG = logging.getLogger(__name__)

_AGAIN_S = 3600.0


class Availability:
    """Tells of an outage: once for each kind of reason, and each hour as long as it lasts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: float | None = None
        self._told: dict[str, float] = {}

    def lost(self, reason: Reason) -> None:
        """Note that it can't be used."""
        now = time.monotonic()
        with self._lock:
            if now - self._told.get(reason.kind, now - _AGAIN_S) < _AGAIN_S:
                return
            self._since = self._since or now
            self._told[reason.kind] = now
        if reason.kind == UNREACHABLE:
            LOG.warning("RabbitMQ is unavailable (%s); waiting for it", reason.words)
        else:
            LOG.error("RabbitMQ rejects the subscription: %s; it will be retried", reason.words)

    def back(self) -> None:
        """Note that it can be used."""
        with self._lock:
            since, self._since = self._since, None
            self._told.clear()
        if since is not None:
            LOG.info(
                "RabbitMQ is available again, after %d s: listening", time.monotonic() - since
            )
