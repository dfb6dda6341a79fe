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

from collections.abc import Callable, Mapping, Sequence
import logging
from typing import Any

from oslo_config import cfg

from kongming import exception
from kongming.allocation import Allocation
from kongming.rpc.calls import CONDUCTOR, EXECUTOR, Caller, get_transport

LOG = logging.getLogger(__name__)


# So much longer a conductor may take than the host that it asks.
_MARGIN_S = 10.0


class ConductorClient:
    """Any one of the conductors."""

    def __init__(self, conf: cfg.ConfigOpts, transport: Any = None) -> None:
        """Use the bus of ``[DEFAULT] transport_url``; nothing is sent yet.

        :param transport: one that is there already.
        :raises ConfigInvalid: if that can't be used.
        """
        self._caller = Caller(
            get_transport(conf) if transport is None else transport,
            CONDUCTOR,
            exception.ConductorSilent,
            lambda: float(conf.conductor.host_timeout) + _MARGIN_S,
        )

    def changed(self, instance_uuids: Sequence[str]) -> None:
        """Say that something else is wanted now; a hint, which may get lost."""
        try:
            self._caller.cast("changed", instance_uuids=list(instance_uuids))
        except exception.Silent as error:
            LOG.warning("%s; the executors will ask by themselves", error)

    def plan(self, instance_uuid: str, allocation: Allocation) -> dict[str, Any]:
        """Have the host say what it would do to a guest.

        :returns: ``outcome`` (planned, refused, failed, absent), ``host``,
            ``reason``, ``message``, ``steps`` and ``warnings``.
        :raises ConductorSilent: if no conductor answers.
        :raises HostSilent: if the host does not.
        """
        written = allocation.to_json()
        answer = self._caller.call("plan", instance_uuid=instance_uuid, allocation=written)
        if answer.get("outcome") == "silent":
            raise exception.HostSilent(answer["message"])
        return answer

    def exchange(self, host: str, **told: Any) -> dict[str, Any]:
        """Tell what is known on a host, and ask what is wanted there.

        :param told: see ``conductor.endpoint``.
        :raises ConductorSilent: if no conductor answers.
        """
        return self._caller.call("exchange", told_by=host, **told)

    def report(self, host: str, reports: Sequence[Mapping[str, Any]]) -> None:
        """Tell what came of what is wanted.

        :raises ConductorSilent: if no conductor says that it has kept that.
        """
        self._caller.call("report", told_by=host, reports=list(reports))

    def show(self, host: str, view: Mapping[str, Any], digest: str) -> None:
        """Tell what a host looks like.

        :raises ConductorSilent: if no conductor says that it has kept that.
        """
        self._caller.call("show", told_by=host, view=view, digest=digest)


class ExecutorClient:
    """The executors of all hosts.

    :param timeout: gives the seconds to wait for an answer.
    """

    def __init__(self, transport: Any, timeout: Callable[[], float]) -> None:
        self._caller = Caller(transport, EXECUTOR, exception.HostSilent, timeout)

    def wanted(self, host: str, instances: Mapping[str, Mapping[str, Any]]) -> bool:
        """Say what is wanted on a host; a hint, which may get lost.

        :returns: whether it could be sent.
        """
        try:
            self._caller.cast("wanted", host, instances=instances)
        except exception.Silent as error:
            LOG.warning("%s; it will ask by itself", error)
            return False
        return True

    def plan(self, host: str, instance_uuid: str, allocation: Mapping[str, Any]) -> dict[str, Any]:
        """Have a host say what it would do to a guest.

        :raises HostSilent: if it does not answer.
        """
        asked = {"instance_uuid": instance_uuid, "allocation": allocation}
        return self._caller.call("plan", host, **asked)
