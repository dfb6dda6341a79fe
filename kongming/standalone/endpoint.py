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

"""The calls of conductors to this host."""

from __future__ import annotations

from collections.abc import Mapping
import logging

from kongming import exception
from kongming.allocation import json_schema
from kongming.allocation.allocation import Allocation
from kongming.executor.executor import Executor
from kongming.executor.placing.dry_run import DryRun
from kongming.rpc.messages import Plan, PlanAnswer, Plans, PlansAnswer, Push
from kongming.rpc.server import Method
from kongming.standalone.conductor_sync import ConductorSync
from kongming.standalone.desired import DesiredAllocations

LOG = logging.getLogger(__name__)

# The delay of a request after an invalid push, which may be one of many.
_REQUEST_WITHIN_S = 5.0


class Endpoint:
    """The methods of an executor.

    :param sync: requests all desired allocations from a conductor.
    """

    def __init__(
        self, host: str, executor: Executor, desired: DesiredAllocations, sync: ConductorSync
    ) -> None:
        self._host = host
        self._executor = executor
        self._desired = desired
        self._sync = sync

    @property
    def methods(self) -> Mapping[str, Method]:
        """The methods that can be called, by name."""
        return {
            "desired": Method(Push, self.push),
            "plan": Method(Plan, self.plan),
            "plan_all": Method(Plans, self.plan_all),
        }

    def push(self, push: Push) -> None:
        """Store pushed allocations, and request all if some can't be stored.

        A push that waited in the queue may be older than the last answer of a conductor. So until
        a conductor has answered since, a push only leads to a request.
        """
        if not self._sync.is_settled:
            self._sync.request()
            return
        if push.left_out:
            self._sync.request(_REQUEST_WITHIN_S)
        try:
            self._desired.accept_push(push.instances)
        except exception.StoreUnavailable as error:
            if error.outage.should_log():
                LOG.error(
                    "Desired allocations can't be stored: %s; they will be requested again", error
                )
            self._sync.request()

    def plan(self, plan: Plan) -> PlanAnswer:
        """Return the plan for a guest (dry run)."""
        try:
            allocation = json_schema.read(plan.allocation)
            found = self._executor.plan(plan.instance_uuid, allocation)
        except exception.HypervisorUnavailable:
            raise
        except exception.KongmingError as error:
            return self._answer(error)
        return self._answer(found)

    def plan_all(self, plans: Plans) -> PlansAnswer:
        """Return the plans for guests that are requested together (dry run)."""
        requested: dict[str, Allocation] = {}
        invalid: dict[str, exception.KongmingError] = {}
        for uuid, written in plans.instances.items():
            try:
                requested[uuid] = Allocation() if written is None else json_schema.read(written)
            except exception.KongmingError as error:
                invalid[uuid] = error
        found = self._executor.plan_all(requested) | invalid
        return PlansAnswer.limited({uuid: self._answer(found[uuid]) for uuid in plans.instances})

    def _answer(self, found: DryRun | exception.KongmingError) -> PlanAnswer:
        if isinstance(found, exception.KongmingError):
            return PlanAnswer(_outcome(found), self._host, found.reason, str(found))
        return PlanAnswer("planned", self._host, **found.to_json())


def _outcome(error: exception.KongmingError) -> str:
    if isinstance(error, exception.Refused):
        return "refused"
    return "absent" if isinstance(error, exception.GuestAbsent) else "failed"
