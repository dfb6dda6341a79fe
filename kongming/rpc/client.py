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

"""What conductors and executors can be asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from oslo_config import cfg

from kongming import exception
from kongming.allocation.allocation import Allocation
from kongming.rpc.bus import CONDUCTOR, EXECUTOR, Bus, open_bus
from kongming.rpc.calls import Caller
from kongming.rpc.messages import (
    Changed,
    Exchange,
    ExchangeAnswer,
    Kept,
    Plan,
    PlanAnswer,
    Push,
    Report,
    Reports,
    Show,
    Wanted,
)
from kongming.rpc.outbox import Outbox

# So much longer a conductor may take than the host that it asks.
_MARGIN_S = 10.0


class ConductorClient:
    """Any one of the conductors."""

    def __init__(self, conf: cfg.ConfigOpts, bus: Bus | None = None) -> None:
        """Use the bus of ``[DEFAULT] transport_url``; nothing is sent yet.

        :param bus: one that is there already.
        :raises ConfigInvalid: if that can't be used.
        """
        self._caller = Caller(
            open_bus(conf) if bus is None else bus,
            CONDUCTOR,
            exception.ConductorSilent,
            lambda: float(conf.conductor.host_timeout) + _MARGIN_S,
        )
        self.outbox: Outbox[None] = Outbox("Hints to the conductors", self._send, lambda *_: None)

    def changed(self, instance_uuids: Sequence[str]) -> None:
        """Say that something else is wanted now; a hint, which may get lost."""
        self.outbox.put(CONDUCTOR.topic, dict.fromkeys(instance_uuids))

    def _send(self, _: str, instance_uuids: Iterable[str]) -> None:
        self._caller.cast("changed", Changed(tuple(instance_uuids)))

    def plan(self, instance_uuid: str, allocation: Allocation) -> dict[str, Any]:
        """Have the host say what it would do to a guest.

        :returns: ``outcome`` (planned, refused, failed, absent), ``host``,
            ``reason``, ``message``, ``steps`` and ``warnings``.
        :raises ConductorSilent: if no conductor answers, or none takes the question.
        :raises HostSilent: if the host does not.
        """
        question = Plan(instance_uuid, allocation.to_json())
        try:
            answer = self._caller.call("plan", question, PlanAnswer)
        except exception.MessageRefused as error:
            raise exception.ConductorSilent(f"a conductor rejects the request: {error}") from error
        if answer.outcome == "silent":
            raise exception.HostSilent(answer.message)
        return answer.to_json()

    def exchange(self, told: Exchange) -> ExchangeAnswer:
        """Tell what is known on a host, and ask what is wanted there.

        :raises ConductorSilent: if no conductor answers.
        :raises MessageRefused: if none takes it.
        """
        return self._caller.call("exchange", told, ExchangeAnswer)

    def report(self, host: str, reports: Sequence[Report]) -> Kept:
        """Tell what came of what is wanted.

        :raises ConductorSilent: if no conductor says that it has kept that.
        :raises MessageRefused: if none takes it.
        """
        return self._caller.call("report", Reports(host, tuple(reports)), Kept)

    def show(self, host: str, view: Mapping[str, Any], digest: str) -> Kept:
        """Tell what a host looks like.

        :raises ConductorSilent: if no conductor says that it has kept that.
        :raises MessageRefused: if none takes it.
        """
        return self._caller.call("show", Show(host, view, digest), Kept)


class ExecutorClient:
    """The executors of all hosts.

    :param timeout: gives the seconds to wait for an answer.
    """

    def __init__(self, bus: Bus, timeout: Callable[[], float]) -> None:
        self._caller = Caller(bus, EXECUTOR, exception.HostSilent, timeout)
        self.outbox = Outbox("Pushes to the hosts", self._send, _newer)

    def wanted(self, host: str, instances: Mapping[str, Wanted]) -> None:
        """Say what is wanted on a host; a hint, which may get lost."""
        self.outbox.put(host, instances)

    def plan(self, host: str, question: Plan) -> PlanAnswer:
        """Have a host say what it would do to a guest.

        :raises HostSilent: if it does not answer.
        :raises MessageRefused: if it does not take the question.
        """
        return self._caller.call("plan", question, PlanAnswer, host)

    def _send(self, host: str, instances: Mapping[str, Wanted]) -> None:
        self._caller.cast("wanted", Push(instances), host)


def _newer(one: Wanted, other: Wanted) -> Wanted:
    return max(one, other, key=lambda wanted: wanted.generation)
