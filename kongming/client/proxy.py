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

"""The service proxy: what ``connection.kongming`` of openstacksdk can do.

Every method raises :class:`kongming.client.Fault` if the API gives no valid answer. Its subclasses
are also openstacksdk's exceptions: ``NotFoundException``, ``ConflictException`` and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import logging
from typing import Any, ClassVar

from openstack import exceptions, proxy

from kongming.client import requests, watching
from kongming.client.progress import Progress, allocations_of, counts
from kongming.client.requests import ApplyMap, DeleteMap, SetAllocation, UnsetAllocation
from kongming.client.resources import (
    Allocation,
    AllocationMap,
    AllocationMapPlan,
    HistoryEntry,
    Host,
    Plan,
)
from kongming.client.rest import Client
from kongming.client.waiting import PATIENCE_S, Waiter
from kongming.client.watching import MapDeletion, MapPlacement, Placement, Releases

Report = Callable[[str], None]

LOG = logging.getLogger(__name__)

# The time to find out whether a change was accepted whose answer got lost.
_SETTLE_S = 10.0


class Replaced(exceptions.ResourceFailure):
    """Another request has replaced the one that was waited for."""


class Proxy(proxy.Proxy):
    """Kongming's API.

    An instance is a UUID or an :class:`Allocation`, a map a name or an :class:`AllocationMap`. An
    allocation is a dict in the form of the API, as ``{"vcpu_pinning": {"0": "4", "1": "5"}}``.

    ``generation`` makes a change fail with :class:`kongming.client.Conflict` unless the current
    generation equals it; 0: it must not exist yet. If omitted, a change replaces unconditionally.

    The answer to a change confirms the request, not its outcome: wait for it. If the answer gets
    lost, the proxy reads whether the request was accepted, and returns that; it raises
    :class:`kongming.client.OutcomeUnknown` if it can't find out.
    """

    # The client knows the paths: no version discovery, which proxies may prevent.
    skip_discovery = True
    api_version: ClassVar[str] = "1"

    def __init__(self, *args: Any, **arguments: Any) -> None:
        super().__init__(*args, **arguments)
        self._rest = Client(self)

    def request(self, *args: Any, **arguments: Any) -> Any:
        """Send a request, as openstacksdk does, but never answer it from a cache."""
        return super().request(*args, **{"skip_cache": True} | arguments)

    def allocations(
        self,
        *,
        host: str | None = None,
        project_id: str | None = None,
        status: str | None = None,
        map: str | None = None,  # noqa: A002, as the API calls it
        limit: int | None = None,
    ) -> Iterator[Allocation]:
        """List allocations, ordered by instance.

        :param map: the name of an allocation map.
        :param limit: the maximum number; None means all.
        """
        filters = {"host": host, "project_id": project_id, "status": status, "map": map}
        for each in self._rest.allocations(limit, **filters):
            yield Allocation.existing(**each)

    def get_allocation(self, instance: str | Allocation) -> Allocation:
        """Return the desired allocation of an instance, and its outcome.

        :raises NotFound: if it has none (``allocation_unknown``).
        """
        return Allocation.existing(**self._rest.allocation(_id(instance)))

    def set_allocation(
        self,
        instance: str | Allocation,
        allocation: Mapping[str, Any],
        *,
        generation: int | None = None,
    ) -> Allocation:
        """Set the allocation of an instance; it replaces the current one.

        :raises BadRequest: if it is invalid.
        :raises Conflict: if it has another generation.
        """
        answer = self._send(SetAllocation(_id(instance), allocation, generation))
        return Allocation.existing(**(answer or {}))

    def plan(self, instance: str | Allocation, allocation: Mapping[str, Any]) -> Plan:
        """Return the steps of an allocation on the running guest; nothing is changed (dry run).

        A refusal is a result, not an error.

        :raises Fault: with the code ``host_unresponsive`` if the host does not respond.
        """
        return Plan.existing(**self._rest.plan(_id(instance), allocation))

    def unset_allocation(
        self, instance: str | Allocation, *, generation: int | None = None
    ) -> Allocation | None:
        """Release an instance: return it to its baseline.

        :returns: the allocation that is being released; None if there was nothing to do.
        :raises NotFound: if it has no allocation.
        :raises Conflict: if it has another generation.
        """
        answer = self._send(UnsetAllocation(_id(instance), generation))
        return None if answer is None else Allocation.existing(**answer)

    def history(
        self, instance: str | Allocation, *, limit: int | None = None
    ) -> Iterator[HistoryEntry]:
        """List the requests for an instance and the changes of its status, oldest first."""
        for each in self._rest.history(_id(instance), limit):
            yield HistoryEntry.existing(**each)

    def allocation_maps(self, *, limit: int | None = None) -> Iterator[AllocationMap]:
        """List the allocation maps, without their allocations."""
        for each in self._rest.maps(limit):
            yield AllocationMap.existing(**each)

    def get_allocation_map(self, name: str | AllocationMap) -> AllocationMap:
        """Return an allocation map with its allocations.

        :raises NotFound: if there is none (``map_unknown``).
        """
        found = self._rest.map(_id(name))
        allocations = [Allocation.existing(**each) for each in found["allocations"]]
        more = {"allocations": allocations, "requested": allocations_of(found)}
        return AllocationMap.existing(**found | more)

    def apply_allocation_map(
        self,
        name: str | AllocationMap,
        allocations: Mapping[str, Mapping[str, Any]],
        *,
        generation: int | None = None,
    ) -> AllocationMap:
        """Set an allocation map, in one transaction.

        A map is complete: instances that were in it and are not any more are released. The proxy
        reads the map first, so that :meth:`wait_for_map` waits for them, too.

        :param allocations: an allocation for each instance's UUID.
        :raises BadRequest: if an allocation is invalid.
        :raises Conflict: if the map has another generation, or an instance another map.
        """
        name = _id(name)
        before = watching.find_map(self._rest, name)
        dropped = [] if before is None else sorted(allocations_of(before).keys() - allocations)
        answer = self._send(ApplyMap(name, allocations, generation, dropped))
        more: dict[str, Any] = {"requested": dict(allocations), "dropped": dropped}
        return AllocationMap.existing(**(answer or {}), **more)

    def plan_allocation_map(
        self,
        name: str | AllocationMap,
        allocations: Mapping[str, Mapping[str, Any]],
        *,
        generation: int | None = None,
    ) -> AllocationMapPlan:
        """Return what a map would change on its running guests; nothing is changed (dry run).

        The instances that would leave the map have plans, too: their releases. A refusal, and a
        host that does not respond, are results of an instance, not errors.

        :param allocations: as of :meth:`apply_allocation_map`, whose errors it raises.
        """
        found = self._rest.plan_map(_id(name), allocations, generation)
        plans = [Plan.existing(**each) for each in found["plans"]]
        return AllocationMapPlan.existing(**{**found, "plans": plans})

    def delete_allocation_map(
        self, name: str | AllocationMap, *, generation: int | None = None
    ) -> AllocationMap | None:
        """Delete a map: release all its instances.

        :returns: the map that is being deleted; None if there was nothing to do.
        :raises NotFound: if there is none.
        :raises Conflict: if it has another generation.
        """
        answer = self._send(DeleteMap(_id(name), generation))
        return None if answer is None else AllocationMap.existing(**answer)

    def hosts(self, *, limit: int | None = None) -> Iterator[Host]:
        """List the known hosts, without their snapshots."""
        for each in self._rest.hosts(limit):
            yield Host.existing(**each)

    def get_host(self, name: str | Host) -> Host:
        """Return a host with its snapshot.

        :raises NotFound: if no executor of it has ever sent a heartbeat (``host_unknown``).
        """
        return Host.existing(**self._rest.host(_id(name)))

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of an allocation."""
        return self._rest.schema()

    def wait_for_allocation(
        self,
        allocation: Allocation,
        timeout: float = 60.0,
        *,
        patience: float = PATIENCE_S,
        report: Report | None = None,
    ) -> Allocation:
        """Wait until the outcome of a request for an instance is known, and return it.

        It may be any status but ``pending``: ``refused`` is a result, not an error.

        :param allocation: as returned by :meth:`set_allocation` or :meth:`get_allocation`.
        :param timeout: the maximum time in seconds.
        :param patience: the seconds to wait for a guest that does not run (``absent``).
        :param report: is called with the progress, one line for people, whenever it changes.
        :raises Replaced: if another request has replaced this one.
        :raises ResourceTimeout: if the outcome is not known in time; the request stays in force.
        """
        answer = {name: allocation[name] for name in ("instance_uuid", "generation")}
        progress = self._wait(
            f"the allocation of instance {allocation.instance_uuid}",
            lambda rest: Placement(rest, answer).poll,
            Waiter(report or LOG.debug, timeout, patience=patience),
        )
        return Allocation.existing(**progress.allocations[0])

    def wait_for_map(
        self,
        map: AllocationMap,  # noqa: A002, as the API calls it
        timeout: float = 300.0,
        *,
        patience: float = PATIENCE_S,
        report: Report | None = None,
    ) -> AllocationMap:
        """Wait until the outcome of a request for a map is known, and return it.

        It waits for the releases of the instances that left the map, too. The map that it returns
        has ``counts`` and ``allocations``; an instance whose server was deleted in Nova meanwhile
        has the status ``gone``.

        The other parameters and the errors are those of :meth:`wait_for_allocation`.

        :param map: as returned by :meth:`apply_allocation_map` or :meth:`get_allocation_map`.
        """
        answer = _unchanging(map)

        def poller(rest: Client) -> Callable[[], Progress]:
            releases = watching.dropped_releases(rest, map.dropped)
            requested = map.requested
            if requested is None:
                requested = allocations_of(rest.map(map.name))
            return MapPlacement(rest, answer, requested, releases).poll

        waiter = Waiter(report or LOG.debug, timeout, patience=patience)
        progress = self._wait(f"the map {map.name}", poller, waiter)
        return AllocationMap.existing(
            **{name: map[name] for name in (*answer, "instances", "updated_at", "requested")},
            counts=counts(progress.allocations),
            allocations=[Allocation.existing(**each) for each in progress.allocations],
        )

    def wait_for_release(
        self,
        released: Allocation | AllocationMap | None,
        timeout: float = 300.0,
        *,
        report: Report | None = None,
    ) -> None:
        """Wait until hosts have returned instances to their baseline.

        The other parameters and the errors are those of :meth:`wait_for_allocation`.

        :param released: as returned by :meth:`unset_allocation` or :meth:`delete_allocation_map`;
            None returns at once.
        """
        if released is None:
            return
        waiter = Waiter(report or LOG.debug, timeout)
        if isinstance(released, AllocationMap):
            answer = _unchanging(released)
            what = f"the deletion of the map {released.name}"
            self._wait(what, lambda rest: MapDeletion(rest, answer).poll, waiter)
            return
        uuid, generation = released.instance_uuid, released.generation
        self._wait(
            f"the release of instance {uuid}",
            lambda rest: Releases(rest, {uuid}, generation=generation).poll,
            waiter,
        )

    def _send(self, request: requests.Request) -> Mapping[str, Any] | None:
        deadline = Waiter(LOG.debug, _SETTLE_S)
        return requests.send(request, self._rest, self._rest.within(deadline.left), LOG.warning)

    def _wait(
        self, what: str, poller: Callable[[Client], Callable[[], Progress]], waiter: Waiter
    ) -> Progress:
        end = waiter.wait(poller(self._rest.within(waiter.left_for_poll, waiter.to_wait)))
        if end.progress is not None and end.progress.replaced:
            raise Replaced(f"{what} was replaced: {end.progress.replaced}")
        if end.fault is not None:
            raise end.fault
        if end.why or end.progress is None:
            last = "" if end.progress is None else f": {end.progress.text}"
            raise exceptions.ResourceTimeout(f"{what} was {end.why}{last}")
        return end.progress


def _id(named: Any) -> str:
    """Return the name or UUID of a resource, or the one that the caller gave."""
    return str(named if isinstance(named, str) else named.id)


def _unchanging(found: AllocationMap) -> dict[str, Any]:
    """Return the fields of a map that another request changes."""
    return {name: found[name] for name in ("name", "generation", "deleting", "created_at")}
