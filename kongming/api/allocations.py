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
"""/v1/allocations: the desired allocations of single instances."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
import time
from typing import Any, ClassVar

import falcon

from kongming import exception
from kongming.allocation import json_schema, timezones
from kongming.allocation.allocation import Allocation
from kongming.api import errors, identity, operation, paging, preconditions, representation
from kongming.api.body import BodyReader
from kongming.api.identity import Rights
from kongming.api.operation import Operation, Resource
from kongming.api.waiting import Waiting
from kongming.db.allocations import Allocations
from kongming.db.hosts import Hosts
from kongming.db.values import Entry, Host
from kongming.rpc.client import ConductorClient


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of the application that the resources share.

    :ivar max_limit: the most entries of one page.
    :ivar max_instances: the most instances of one map.
    """

    allocations: Allocations
    hosts: Hosts
    conductor: ConductorClient
    rights: Rights
    waiting: Waiting
    bodies: BodyReader
    max_limit: int
    max_instances: int

    def hosts_of(self, entries: Iterable[Entry]) -> Mapping[str, Host]:
        """Read the hosts that report the instances, by name."""
        names = {entry.reporter for entry in entries if entry.reporter}
        return {host.name: host for host in self.hosts.named(names)} if names else {}

    def wait_settled(self, query: Mapping[str, Any], is_settled: Callable[[], bool]) -> None:
        """Wait for the outcome of a request, at most as long as the query says."""
        if seconds := query.get("wait_s", 0):
            self.waiting.wait_until(is_settled, seconds)

    def show(self, entries: Iterable[Entry]) -> list[dict[str, Any]]:
        """Return the desired allocations of instances as rows of a list."""
        entries, now = list(entries), time.time()
        hosts = self.hosts_of(entries)
        return [representation.allocation(entry, hosts, now) for entry in entries]


def read(where: str, written: object) -> Allocation:
    """Read an allocation from the body of a request.

    :raises BodyInvalid: naming the place of each problem; also if the allocation is empty.
    """
    try:
        found = json_schema.read(written)
    except json_schema.AllocationInvalid as error:
        problems = [f"{where}: {each}" for each in (error, *error.others)]
        raise errors.BodyInvalid(*problems) from error
    if not found:
        raise errors.BodyInvalid(
            f"{where}: the allocation is empty; use DELETE to release the instance"
        )
    return found


class AllocationList(Resource):
    """All allocations."""

    path: ClassVar[str] = "/v1/allocations"
    operations: ClassVar[Mapping[str, Operation]] = {
        "GET": Operation(
            "List the allocations and their status, by instance.",
            {200: "AllocationList"},
            query=(
                operation.OF_HOST,
                operation.OF_PROJECT,
                operation.OF_STATUS,
                operation.OF_MAP,
                operation.LIMIT,
                operation.AFTER_INSTANCE,
            ),
        )
    }

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List them; a reader of one project gets only those of the project."""
        parts = self._parts
        own = parts.rights.own_project(req, "kongming:allocation:list")
        query = self.operations["GET"].read_query(req)
        project_id = query.get("project_id", own)
        if own is not None and "host" in query:
            raise errors.Forbidden("only administrators may filter by host")
        limit = paging.limit_of(query, parts.max_limit)
        found: list[Entry] = []
        if own in (None, project_id):
            found = parts.allocations.list(
                host=query.get("host"),
                project_id=project_id,
                status=query.get("status"),
                map_name=query.get("map"),
                limit=limit + 1,
                marker=query.get("marker"),
            )
        page, more = paging.cut(found, limit)
        shown = parts.show(page)
        resp.media = {
            "allocations": shown if own is None else [*map(representation.without_hosts, shown)],
            "links": paging.links(req, query, page[-1].instance_uuid) if more else [],
        }


class AllocationItem(Resource):
    """The desired allocation of one instance."""

    path: ClassVar[str] = "/v1/allocations/{instance_uuid}"
    operations: ClassVar[Mapping[str, Operation]] = {
        "GET": Operation(
            "Show the allocation of an instance and its status.",
            {200: "Allocation"},
            query=(operation.WAIT,),
            errors=(404,),
        ),
        "PUT": Operation(
            "Set the allocation of an instance, or plan it (dry run).",
            {200: "AllocationOrPlan", 201: "Allocation"},
            query=(operation.DRY_RUN,),
            body="AllocationBody",
            errors=(409, 411, 412, 413, 415),
            conditional=True,
        ),
        "DELETE": Operation(
            "Release an instance: return it to its baseline.",
            {202: "Allocation", 204: None},
            query=(operation.GENERATION,),
            errors=(404, 409, 412),
            conditional=True,
        ),
    }

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def on_get(self, req: falcon.Request, resp: falcon.Response, instance_uuid: str) -> None:
        """Show it."""
        uuid = operation.INSTANCE_UUID.value(instance_uuid)
        query = self.operations["GET"].read_query(req)
        rule = "kongming:allocation:get"
        visible(self._parts, req, uuid, rule)
        self._parts.wait_settled(query, partial(self._is_settled, uuid))
        shown = self._shown(visible(self._parts, req, uuid, rule))
        confined = self._parts.rights.own_project(req, rule) is not None
        resp.media = representation.without_hosts(shown) if confined else shown

    def on_put(self, req: falcon.Request, resp: falcon.Response, instance_uuid: str) -> None:
        """Request it, or plan it."""
        uuid = operation.INSTANCE_UUID.value(instance_uuid)
        dry_run = self.operations["PUT"].read_query(req).get("dry_run", False)
        self._parts.rights.require(req, f"kongming:allocation:{'plan' if dry_run else 'set'}")
        requested, generation = self._parts.bodies.read(
            req, "allocation", partial(read, "allocation")
        )
        if dry_run:
            preconditions.check_none(req)
            resp.media = {"instance_uuid": uuid, **self._plan(uuid, requested)}
            return
        before = self._parts.allocations.get(uuid)
        with preconditions.holds(req, generation) as known:
            entry, created = self._parts.allocations.put(
                uuid,
                requested,
                generation=known,
                requested_by=identity.requested_by(req),
                request_id=identity.request_id(req),
            )
        if before is None or before.generation != entry.generation:
            self._parts.conductor.changed([uuid])
        resp.status = 201 if created else 200
        resp.media = self._shown(entry)

    def on_delete(self, req: falcon.Request, resp: falcon.Response, instance_uuid: str) -> None:
        """Release the instance."""
        uuid = operation.INSTANCE_UUID.value(instance_uuid)
        self._parts.rights.require(req, "kongming:allocation:delete")
        query = self.operations["DELETE"].read_query(req)
        with preconditions.holds(req, query.get("generation")) as known:
            remaining = self._parts.allocations.delete(
                uuid,
                generation=known,
                requested_by=identity.requested_by(req),
                request_id=identity.request_id(req),
            )
        if remaining is None:
            resp.status = 204
            return
        self._parts.conductor.changed([uuid])
        resp.status = 202
        resp.media = self._shown(remaining)

    def _plan(self, instance_uuid: str, requested: Allocation) -> dict[str, Any]:
        conductor = self._parts.conductor
        # The call has a time limit of its own.
        return self._parts.waiting.wait_for(lambda: conductor.plan(instance_uuid, requested))

    def _is_settled(self, instance_uuid: str) -> bool:
        entry = self._parts.allocations.get(instance_uuid)
        return entry is None or entry.status.is_settled

    def _shown(self, entry: Entry) -> dict[str, Any]:
        timezones.refresh()
        return representation.with_window(self._parts.show([entry])[0], entry, time.time())


class AllocationHistory(Resource):
    """The history of one instance."""

    path: ClassVar[str] = "/v1/allocations/{instance_uuid}/history"
    operations: ClassVar[Mapping[str, Operation]] = {
        "GET": Operation(
            "List the requests for an instance and their outcomes, oldest first.",
            {200: "History"},
            query=(operation.LIMIT, operation.AFTER_CHANGE),
            errors=(404,),
        )
    }

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def on_get(self, req: falcon.Request, resp: falcon.Response, instance_uuid: str) -> None:
        """List it; administrators also see the history of deleted instances."""
        parts, rule = self._parts, "kongming:allocation:history"
        uuid = operation.INSTANCE_UUID.value(instance_uuid)
        query = self.operations["GET"].read_query(req)
        confined = parts.rights.own_project(req, rule) is not None
        if confined:
            visible(parts, req, uuid, rule)
        limit = paging.limit_of(query, parts.max_limit)
        found = parts.allocations.history(uuid, limit=limit + 1, marker=query.get("marker"))
        if not found and "marker" not in query:
            raise unknown(uuid)
        page, more = paging.cut(found, limit)
        shown = [representation.change(entry) for entry in page]
        resp.media = {
            "history": [*map(representation.without_hosts, shown)] if confined else shown,
            "links": paging.links(req, query, page[-1].id) if more else [],
        }


def visible(parts: Parts, req: falcon.Request, instance_uuid: str, rule: str) -> Entry:
    """Return the desired allocation of an instance, if the client may see it.

    :raises AllocationUnknown: if there is none, or it is of another project, which is not
        disclosed.
    """
    entry = parts.allocations.get(instance_uuid)
    project_id = None if entry is None else entry.project_id
    if not parts.rights.may_see(req, rule, project_id) or entry is None:
        raise unknown(instance_uuid)
    return entry


def unknown(instance_uuid: str) -> exception.AllocationUnknown:
    """Return the error for an instance without an allocation."""
    return exception.AllocationUnknown(f"instance {instance_uuid} has no allocation")
