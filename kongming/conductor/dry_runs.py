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

"""Dry runs of many instances: one call to each host, all hosts in parallel."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import wait
from dataclasses import replace
import time
from typing import Any

from kongming import exception
from kongming.conductor.delivery import Delivery
from kongming.rpc.client import ExecutorClient
from kongming.rpc.messages import Plan, PlanAnswer, Plans, PlansAnswer
from kongming.runtime import threads

# The most hosts that are called at once.
_CALLS_MAX = 64
# The time for the answers to be read, in addition to the time limit of the hosts.
_READ_S = 3.0

ABSENT = PlanAnswer(
    "absent", reason=exception.GuestAbsent.reason, message="the instance is on no known host"
)


class DryRuns:
    """The calls of dry runs to the hosts."""

    def __init__(self, executors: ExecutorClient, delivery: Delivery) -> None:
        self._executors = executors
        self._delivery = delivery

    def plan(self, plan: Plan) -> PlanAnswer:
        """Return the plan of the instance's host."""
        host = self._delivery.host_of(plan.instance_uuid)
        return ABSENT if host is None else self._plan(host, plan)

    def plan_all(self, plans: Plans) -> PlansAnswer:
        """Return the plans of the instances' hosts, and which of them give none."""
        hosts = self._delivery.hosts_of(plans.instances)
        by_host: dict[str, dict[str, Mapping[str, Any] | None]] = {}
        for uuid, requested in plans.instances.items():
            if (host := hosts.get(uuid)) is not None:
                by_host.setdefault(host, {})[uuid] = requested
        found: dict[str, PlanAnswer] = {}
        for each in self._call({host: Plans(of) for host, of in by_host.items()}).values():
            found |= each
        return PlansAnswer.limited({uuid: found.get(uuid, ABSENT) for uuid in plans.instances})

    def _call(self, by_host: dict[str, Plans]) -> dict[str, dict[str, PlanAnswer]]:
        """Return the answers of the hosts within the time limit."""
        seconds = self._executors.host_timeout + _READ_S
        until = time.monotonic() + seconds
        waiting = deque(by_host.items())
        answers = {
            host: dict.fromkeys(
                plans.instances,
                _unresponsive(host, f"host {host} gave no plans within {seconds:g} s"),
            )
            for host, plans in by_host.items()
        }
        found: dict[str, dict[str, PlanAnswer]] = {}

        def work() -> None:
            while waiting and time.monotonic() < until:
                try:
                    host, plans = waiting.popleft()
                except IndexError:
                    return
                found[host] = self._of_host(host, plans, until)

        calls = [threads.start(work, "dry run") for _ in range(min(_CALLS_MAX, len(by_host)))]
        for ended in wait(calls, seconds).done:
            ended.result()
        return answers | dict(found)

    def _of_host(self, host: str, plans: Plans, until: float) -> dict[str, PlanAnswer]:
        try:
            found = self._executors.plan_all(host, plans).plans
        except exception.HostUnresponsive as error:
            return dict.fromkeys(plans.instances, _unresponsive(host, str(error)))
        except exception.MessageInvalid:
            return self._one_by_one(host, plans, until)
        except exception.MessageRefused as error:
            return dict.fromkeys(plans.instances, _rejected(host, error))
        none = PlanAnswer("failed", host, message=f"host {host} has no valid plan for it")
        return {uuid: found.get(uuid, none) for uuid in plans.instances}

    def _one_by_one(self, host: str, plans: Plans, until: float) -> dict[str, PlanAnswer]:
        """Ask an executor of an older version, which plans one instance at a time."""
        answers = {}
        for uuid, requested in plans.instances.items():
            if requested is None:
                answers[uuid] = PlanAnswer(
                    "failed", host, message=f"the version of host {host} does not plan releases"
                )
            elif time.monotonic() < until:
                answers[uuid] = _alone(host, self._plan(host, Plan(uuid, requested)))
            else:
                message = f"host {host} plans one instance at a time, and the time is over"
                answers[uuid] = _unresponsive(host, message)
        return answers

    def _plan(self, host: str, plan: Plan) -> PlanAnswer:
        try:
            return self._executors.plan(host, plan)
        except exception.HostUnresponsive as error:
            return _unresponsive(host, str(error))
        except exception.MessageRefused as error:
            return _rejected(host, error)


def _alone(host: str, plan: PlanAnswer) -> PlanAnswer:
    note = f"the version of host {host} does not consider the other instances of the request"
    return replace(plan, warnings=(*plan.warnings, note)) if plan.outcome == "planned" else plan


def _unresponsive(host: str, message: str) -> PlanAnswer:
    reason = exception.HostUnresponsive.reason
    return PlanAnswer(PlanAnswer.UNRESPONSIVE, host, reason, message)


def _rejected(host: str, error: exception.MessageRefused) -> PlanAnswer:
    return _unresponsive(host, f"host {host} rejects the request: {error}")
