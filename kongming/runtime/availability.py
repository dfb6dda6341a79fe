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
"""Whether another service can be used: each outage is logged once, and so is its end."""

from __future__ import annotations

import logging
import threading
import time

from kongming.runtime.hourly import Hourly


class Availability:
    """The availability of one other service. Any thread may call any method.

    :param name: the service, as a sentence begins with it.
    :param log: the logger of the module that uses it.
    """

    def __init__(self, name: str, log: logging.Logger) -> None:
        self._name = name
        self._log = log
        self._lock = threading.Lock()
        self._since: float | None = None
        self._hourly = Hourly()

    @property
    def is_available(self) -> bool:
        """Whether the service could be used at the last attempt."""
        return self._since is None

    def lost(self, problem: str, kind: str = "", level: int = logging.WARNING) -> None:
        """Note that the service can't be used.

        The problem is logged once for each kind, and again each hour as long as the outage lasts.

        :param problem: what fails, why, and what happens until the service is available.
        """
        with self._lock:
            if self._since is None:
                self._since, self._hourly = time.monotonic(), Hourly()
            hourly = self._hourly
        if hourly.should_log(kind):
            self._log.log(level, "%s", problem)

    def restored(self) -> None:
        """Note that the service can be used; log the end of an outage."""
        with self._lock:
            since, self._since = self._since, None
        if since is not None:
            self._log.info(
                "%s is available again, after %d s", self._name, time.monotonic() - since
            )
