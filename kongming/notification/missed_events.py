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

"""Edits that Nova's API told of, and no event: a sign that events get lost on their way."""

from __future__ import annotations

from collections.abc import Callable
import logging
import threading
import time

LOG = logging.getLogger(__name__)

#: An event may come so much later than Nova's database shows what it is about.
PATIENCE_S = 60.0


class Unheard:
    """Tells of edits that no event told of, once for each. Any thread may call it.

    :param clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._found: dict[str, float] = {}

    def found(self, instance_uuid: str) -> None:
        """Note that an answer of Nova's showed an edit; an event may still tell of it."""
        with self._lock:
            self._found.setdefault(instance_uuid, self._clock())

    def heard(self, instance_uuid: str) -> None:
        """Note that an event of an instance came."""
        with self._lock:
            self._found.pop(instance_uuid, None)

    def tell(self) -> None:
        """Tell of those that no event told of within the time that one may take."""
        until = self._clock() - PATIENCE_S
        with self._lock:
            missed = sorted(uuid for uuid, at in self._found.items() if at <= until)
            for instance_uuid in missed:
                del self._found[instance_uuid]
        if missed:
            LOG.warning(
                "The metadata of %d instances, among them %s, was edited and no event reported "
                "it; Nova's API did. Events get lost: run 'kongming-status upgrade check', and "
                "check that all Nova services send notifications to the same RabbitMQ",
                len(missed),
                missed[0],
            )
