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

"""The readiness of a service, reported to the service manager and the log.

A service is ready when all of its parts have been ready once.
"""

import logging
import threading

from kongming.runtime import systemd

LOG = logging.getLogger(__name__)


class Readiness:
    """Named parts of a service, and whether each has been ready once."""

    def __init__(self, *parts: str) -> None:
        self._lock = threading.Lock()
        self._parts = parts
        self._missing = set(parts)
        self.ready = threading.Event()

    def reached(self, part: str) -> None:
        """Note that a part is ready; report the service ready after the last part."""
        with self._lock:
            self._missing.discard(part)
            if self._missing or self.ready.is_set():
                return
            self.ready.set()
        LOG.info("Ready: %s", ", ".join(self._parts))
        systemd.notify(systemd.READY)
