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

"""Clients of the conductors and the executors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from oslo_config import cfg

from kongming import exception
from kongming.allocation.allocation import Allocation
from kongming.rpc.bus import CONDUCTOR, EXECUTOR, Bus, open_bus
from kongming.rpc.calls import Caller
from kongming.rpc.messages import (
    Acknowledgement,
    Changed,
    Desired,
    Exchange,
    ExchangeAnswer,
    HostSnapshot,
    Plan,
    PlanAnswer,
    Plans,
    PlansAnswer,
    Push,
    Report,
    Reports,
)
from kongming.rpc.outbox import Outbox

# A conductor may take this much longer than the host that it calls.
_MARGIN_S = 10.0
# For a whole map, whose instances Nova may have to be asked for.
_MAP_MARGIN_S = 30.0


class ConductorClient:
    """A client of any one of the conductors."""

    def __init__(self, conf: cfg.ConfigOpts, bus: Bus | None = None) -> None:
        """Use the bus of ``[DEFAULT] transport_url``, without sending anything yet.

        :param bus: an open bus to use instead.
        :raises ConfigInvalid: if the options can't be used.
        """
        opened = open_bus(conf) if bus is None else bus
        unresponsive, seconds = exception.ConductorUnresponsive, conf.conductor.host_timeout
        self._caller = Caller(opened, CONDUCTOR, unresponsive, seconds + _MARGIN_S)
        self._map_caller = Caller(opened, CONDUCTOR, unresponsive, seconds + _MAP_MARGIN_S)
        self.outbox: Outbox[None] = Outbox("Hints to the conductors", self._send, lambda *_: None)

    def set_host_timeout(self, seconds: float) -> None:
        """Wait for an answer as long as a host may take, and a little longer."""
        self._caller.timeout_s = seconds + _MARGIN_S
        self._map_caller.timeout_s = seconds + _MAP_MARGIN_S

    def changed(self, instance_uuids: Sequence[str]) -> None:
        """Send a hint, which may get lost, that desired allocations have changed."""
        self.outbox.put(CONDUCTOR.topic, dict.fromkeys(instance_uuids))

    def _send(self, _: str, instance_uuids: Iterable[str]) -> None:
        self._caller.cast("changed", Changed(tuple(instance_uuids)))

    def plan(self, instance_uuid: str, allocation: Allocation) -> dict[str, Any]:
        """Return the plan of the instance's host for a guest (dry run).

        :returns: ``outcome`` (planned, refused, failed, absent), ``host``,
            ``reason``, ``message``, ``steps`` and ``warnings``.
        :raises ConductorUnresponsive: if no conductor accepts the call.
        :raises HostUnresponsive: if the host does not.
        """
        plan = Plan(instance_uuid, allocation.to_json())
        try:
            answer = self._caller.call("plan", plan, PlanAnswer)
        except exception.MessageRefused as error:
            raise _rejected(error) from error
        if answer.outcome == PlanAnswer.UNRESPONSIVE:
            raise exception.HostUnresponsive(answer.message)
        return answer.to_json()

    def plan_all(self, requested: Mapping[str, Allocation | None]) -> dict[str, dict[str, Any]]:
        """Return the plans of the hosts for instances that are requested together (dry run).

        :param requested: by instance; None is its release.
        :returns: by instance, as :meth:`plan`; ``outcome`` is also ``unresponsive``.
        :raises ConductorUnresponsive: if no conductor accepts the call.
        """
        plans = Plans(
            {uuid: None if each is None else each.to_json() for uuid, each in requested.items()}
        )
        try:
            answer = self._map_caller.call("plan_all", plans, PlansAnswer)
        except exception.MessageRefused as error:
            raise _rejected(error) from error
        none = PlanAnswer("failed", message="there is no valid plan for it")
        return {uuid: answer.plans.get(uuid, none).to_json() for uuid in requested}

    def exchange(self, exchange: Exchange) -> ExchangeAnswer:
        """Send the state of a host, and return the allocations that are desired there.

        :raises ConductorUnresponsive: if no conductor answers.
        :raises MessageRefused: if none accepts it.
        """
        return self._caller.call("exchange", exchange, ExchangeAnswer)

    def report(self, host: str, reports: Sequence[Report]) -> Acknowledgement:
        """Send reports of a host, and return when they are stored.

        :raises ConductorUnresponsive: if no conductor acknowledges them.
        :raises MessageRefused: if none accepts them.
        """
        return self._caller.call("report", Reports(host, tuple(reports)), Acknowledgement)

    def send_snapshot(
        self, host: str, snapshot: Mapping[str, Any], digest: str
    ) -> Acknowledgement:
        """Send the snapshot of a host, and return when it is stored.

        :raises ConductorUnresponsive: if no conductor acknowledges it.
        :raises MessageRefused: if none accepts it.
        """
        return self._caller.call("snapshot", HostSnapshot(host, snapshot, digest), Acknowledgement)


class ExecutorClient:
    """A client of the executors of all hosts.

    :param timeout_s: how long to wait for an answer.
    """

    def __init__(self, bus: Bus, timeout_s: float) -> None:
        self._caller = Caller(bus, EXECUTOR, exception.HostUnresponsive, timeout_s)
        self.outbox = Outbox("Pushes to the hosts", self._send, _newer)

    def set_host_timeout(self, seconds: float) -> None:
        """Wait so long for an answer."""
        self._caller.timeout_s = seconds

    @property
    def host_timeout(self) -> float:
        """How long it waits for an answer, in seconds."""
        return self._caller.timeout_s

    def push(self, host: str, instances: Mapping[str, Desired]) -> None:
        """Send desired allocations to a host as a hint, which may get lost."""
        self.outbox.put(host, instances)

    def plan(self, host: str, plan: Plan) -> PlanAnswer:
        """Return a host's plan for a guest (dry run).

        :raises HostUnresponsive: if it gives no answer.
        :raises MessageRefused: if it refuses the call.
        """
        return self._caller.call("plan", plan, PlanAnswer, host)

    def plan_all(self, host: str, plans: Plans) -> PlansAnswer:
        """Return a host's plans for guests that are requested together (dry run).

        It raises the errors of :meth:`plan`.
        """
        return self._caller.call("plan_all", plans, PlansAnswer, host)

    def _send(self, host: str, instances: Mapping[str, Desired]) -> None:
        self._caller.cast("desired", Push(instances), host)


def _rejected(error: exception.MessageRefused) -> exception.ConductorUnresponsive:
    return exception.ConductorUnresponsive(f"a conductor rejects the request: {error}")


def _newer(one: Desired, other: Desired) -> Desired:
    return max(one, other, key=lambda desired: desired.generation)
