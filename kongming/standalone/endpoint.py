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

"""The calls that conductors make to this host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import logging
from typing import Any

import oslo_messaging

from kongming import exception, schema
from kongming.executor.executor import Executor
from kongming.rpc.calls import EXECUTOR, answers
from kongming.standalone.wanted import Wanted

LOG = logging.getLogger(__name__)


class Endpoint:
    """What an executor can be asked for.

    :param ask_soon: has a conductor asked for all that is wanted.
    """

    target = oslo_messaging.Target(version=EXECUTOR.version)

    def __init__(
        self, host: str, executor: Executor, wanted: Wanted, ask_soon: Callable[[], None]
    ) -> None:
        self._host = host
        self._executor = executor
        self._wanted = wanted
        self._ask_soon = ask_soon

    def wanted(self, _context: Any, instances: Mapping[str, Any]) -> None:
        """Take what is wanted for some instances: generation, allocation (or null), asked_by."""
        try:
            self._wanted.push(instances)
        except exception.StoreUnavailable as error:
            unavailable = error
        except (KeyError, TypeError, AttributeError) as error:
            LOG.warning("What a conductor says can't be read (%r); it is asked instead", error)
            self._ask_soon()
            return
        else:
            return
        if unavailable.outage.is_news():
            LOG.error("What is wanted can't be kept: %s; it will be asked for", unavailable)
        self._ask_soon()

    @answers
    def plan(
        self, _context: Any, instance_uuid: str, allocation: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Say what would be done to a guest: ``outcome``, ``reason``, ``message`` and the plan."""
        said: dict[str, Any] = {"host": self._host, "reason": "", "message": ""}
        try:
            found = self._executor.plan(instance_uuid, schema.read(allocation))
        except exception.HypervisorUnavailable:
            raise
        except exception.KongmingError as error:
            said |= {"outcome": _outcome(error), "reason": error.reason, "message": str(error)}
            return said | {"steps": [], "warnings": []}
        return said | {"outcome": "planned"} | found.to_json()


def _outcome(error: exception.KongmingError) -> str:
    if isinstance(error, exception.Refused):
        return "refused"
    return "absent" if isinstance(error, exception.GuestAbsent) else "failed"
