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

from typing import Any

from oslo_config import cfg
from oslo_middleware.healthcheck import pluginbase

from kongming import exception
from kongming.db.database import Database


class DatabaseHealth(pluginbase.HealthcheckBaseExtension):
    """A plugin of oslo.middleware's: whether the database answers, with the right tables."""

    def __init__(self, oslo_conf: cfg.ConfigOpts, conf: dict[str, Any]) -> None:
        super().__init__(oslo_conf, conf)
        self._database = Database(oslo_conf)

    def healthcheck(self, server_port: int) -> Any:
        """Ask the database; what is wrong is not told to everybody."""
        try:
            self._database.check_schema()
        except exception.DatabaseUnavailable:
            return pluginbase.HealthcheckResult(available=False, reason="database_unavailable")
        return pluginbase.HealthcheckResult(available=True, reason="OK")
