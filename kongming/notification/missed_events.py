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

"""Edits that Nova's API shows and no event reported: a sign that events get lost."""

from __future__ import annotations

from collections.abc import Callable
import logging
import threading
import time

LOG = logging.getLogger(__name__)

#: The seconds by which an event may arrive later than Nova's API shows the edit.
PATIENCE_S = 60.0


class MissedEvents:
    """Warns about edits without an event, once for each. Any thread may call any method.

    :param clock: returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._edited: dict[str, float] = {}

    def note_edit(self, instance_uuid: str) -> None:
        """Note an edit that Nova's API shows; its event may still arrive."""
        with self._lock:
            self._edited.setdefault(instance_uuid, self._clock())

    def note_event(self, instance_uuid: str) -> None:
        """Note an event of an instance."""
        with self._lock:
            self._edited.pop(instance_uuid, None)

    def warn(self) -> None:
        """Log the edits whose events did not arrive in time."""
        until = self._clock() - PATIENCE_S
        with self._lock:
            missed = sorted(uuid for uuid, at in self._edited.items() if at <= until)
            for instance_uuid in missed:
                del self._edited[instance_uuid]
        if missed:
            LOG.warning(
                "The metadata of %d instances, among them %s, was edited and no event reported "
                "it; Nova's API did. Events get lost: run 'kongming-status upgrade check', and "
                "check that all Nova services send notifications to the same RabbitMQ",
                len(missed),
                missed[0],
            )
