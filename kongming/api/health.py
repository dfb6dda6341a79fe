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
"""Whether the API can do its work: for load balancers, at /healthcheck."""

from __future__ import annotations

import threading
from typing import Any

from oslo_config import cfg
from oslo_middleware.healthcheck import pluginbase

from kongming import exception
from kongming.db.database import Database
from kongming.db.liveness import Attempt

# A load balancer waits for a second or two.
_LIMIT_S = 0.7


class DatabaseHealth(pluginbase.HealthcheckBaseExtension):
    """A plugin of oslo.middleware's: whether the database, with the right tables, takes writes.

    Its connections are its own, so that it waits for nobody else.
    """

    def __init__(self, oslo_conf: cfg.ConfigOpts, conf: dict[str, Any]) -> None:
        super().__init__(oslo_conf, conf)
        self._database = Database(oslo_conf)
        self._lock = threading.Lock()
        self._question: Attempt[None] | None = None

    def healthcheck(self, server_port: int) -> Any:
        """Ask the database; what is wrong is not told to everybody."""
        question = self._ask()
        try:
            if not question.done.wait(_LIMIT_S):
                return _UNAVAILABLE
            question.result()
        except exception.KongmingError:
            return _UNAVAILABLE
        return pluginbase.HealthcheckResult(available=True, reason="OK")

    def _ask(self) -> Attempt[None]:
        """Return the question that is under way, or a new one."""
        with self._lock:
            if self._question is None or self._question.done.is_set():
                self._question = Attempt(self._database.check_writes, lambda _: None)
            return self._question


_UNAVAILABLE = pluginbase.HealthcheckResult(available=False, reason="database_unavailable")
