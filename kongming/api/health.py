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
"""The health check of the API for load balancers, at /healthcheck."""

from __future__ import annotations

import threading
from typing import Any

from oslo_config import cfg
from oslo_middleware.healthcheck import pluginbase

from kongming import exception
from kongming.db.database import Database
from kongming.db.liveness import Attempt

# Load balancers wait for a second or two.
_LIMIT_S = 0.7


class DatabaseHealth(pluginbase.HealthcheckBaseExtension):
    """A plugin of oslo.middleware: whether the database has the right tables and accepts writes.

    It has connections of its own, so that it does not wait for other requests.
    """

    def __init__(self, oslo_conf: cfg.ConfigOpts, conf: dict[str, Any]) -> None:
        super().__init__(oslo_conf, conf)
        self._database = Database(oslo_conf)
        self._lock = threading.Lock()
        self._attempt: Attempt[None] | None = None

    def healthcheck(self, server_port: int) -> Any:
        """Check the database; the public response has no details."""
        attempt = self._current_attempt()
        try:
            if not attempt.done.wait(_LIMIT_S):
                return _UNAVAILABLE
            attempt.result()
        except exception.KongmingError:
            return _UNAVAILABLE
        return pluginbase.HealthcheckResult(available=True, reason="OK")

    def _current_attempt(self) -> Attempt[None]:
        """Return the attempt in progress, or a new one."""
        with self._lock:
            if self._attempt is None or self._attempt.done.is_set():
                self._attempt = Attempt(self._database.check_writes, lambda _: None)
            return self._attempt


_UNAVAILABLE = pluginbase.HealthcheckResult(available=False, reason="database_unavailable")
