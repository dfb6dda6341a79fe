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

from collections.abc import Mapping
import logging

from kongming import exception
from kongming.allocation import json_schema
from kongming.executor.executor import Executor
from kongming.rpc.messages import Plan, PlanAnswer, Push
from kongming.rpc.server import Method
from kongming.standalone.conductor_sync import ConductorSync
from kongming.standalone.desired import DesiredAllocations

LOG = logging.getLogger(__name__)

# Whatever comes in between, a conductor is not asked more often than that because of it.
_ASK_WITHIN_S = 5.0


class Endpoint:
    """What an executor can be asked for.

    :param sync: has a conductor asked for all that is requested.
    """

    def __init__(
        self, host: str, executor: Executor, wanted: DesiredAllocations, sync: ConductorSync
    ) -> None:
        self._host = host
        self._executor = executor
        self._wanted = wanted
        self._sync = sync

    @property
    def methods(self) -> Mapping[str, Method]:
        """What can be called, by name."""
        return {"desired": Method(Push, self.push), "plan": Method(Plan, self.plan)}

    def push(self, told: Push) -> None:
        """Take what is requested for some instances; what can't be taken is asked for.

        What waited here while nobody listened may be older than what was asked for since, or
        undone by now: until a conductor has answered it is but a reason to ask.
        """
        if not self._sync.is_settled:
            self._sync.ask()
            return
        if told.left_out:
            self._sync.ask(_ASK_WITHIN_S)
        try:
            self._wanted.push(told.instances)
        except exception.StoreUnavailable as error:
            if error.outage.is_news():
                LOG.error(
                    "Desired allocations can't be stored: %s; they will be requested again", error
                )
            self._sync.ask()

    def plan(self, question: Plan) -> PlanAnswer:
        """Say what would be done to a guest."""
        try:
            allocation = json_schema.read(question.allocation)
            found = self._executor.plan(question.instance_uuid, allocation)
        except exception.HypervisorUnavailable:
            raise
        except exception.KongmingError as error:
            return PlanAnswer(_outcome(error), self._host, error.reason, str(error))
        return PlanAnswer("planned", self._host, **found.to_json())


def _outcome(error: exception.KongmingError) -> str:
    if isinstance(error, exception.Refused):
        return "refused"
    return "absent" if isinstance(error, exception.GuestAbsent) else "failed"
