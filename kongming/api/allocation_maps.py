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
"""/v1/allocation-maps: the allocations of many instances, replaced together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import falcon

from kongming import exception
from kongming.allocation import json_schema
from kongming.allocation.allocation import Allocation
from kongming.allocation.statuses import Status
from kongming.api import errors, identity, operation, paging, preconditions, representation
from kongming.api.allocations import Parts, read
from kongming.api.operation import Operation, Resource


class MapList(Resource):
    """All allocation maps."""

    path: ClassVar[str] = "/v1/allocation-maps"
    operations: ClassVar[Mapping[str, Operation]] = {
        "GET": Operation(
            "List the allocation maps by name.",
            {200: "MapList"},
            query=(operation.LIMIT, operation.AFTER_NAME),
        )
    }

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List them."""
        parts = self._parts
        parts.rights.require(req, "kongming:map:list")
        query = self.operations["GET"].read_query(req)
        limit = paging.limit_of(query, parts.max_limit)
        found = parts.allocations.maps(limit + 1, query.get("marker"))
        page, more = paging.cut(found, limit)
        resp.media = {
            "allocation_maps": [representation.allocation_map(each) for each in page],
            "links": paging.links(req, query, page[-1].name) if more else [],
        }


class MapItem(Resource):
    """One allocation map."""

    path: ClassVar[str] = "/v1/allocation-maps/{name}"
    operations: ClassVar[Mapping[str, Operation]] = {
        "GET": Operation(
            "Show an allocation map with the status of each instance.",
            {200: "MapWithAllocations"},
            query=(operation.WAIT,),
            errors=(404,),
        ),
        "PUT": Operation(
            "Set a whole map, or plan it (dry run); the instances that are no longer in it are "
            "released.",
            {200: "MapOrPlan", 201: "Map"},
            query=(operation.DRY_RUN,),
            body="MapBody",
            errors=(409, 411, 412, 413, 415),
            conditional=True,
        ),
        "DELETE": Operation(
            "Delete a map: release all of its instances.",
            {202: "Map", 204: None},
            query=(operation.GENERATION,),
            errors=(404, 409, 412),
            conditional=True,
        ),
    }

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Show it."""
        parts = self._parts
        parts.rights.require(req, "kongming:map:get")
        name = operation.NAME.value(name)
        query = self.operations["GET"].read_query(req)
        parts.wait_settled(query, partial(self._is_settled, name))
        found = parts.allocations.get_map(name)
        if found is None:
            raise exception.MapUnknown(f"no allocation map {name} exists: check its name")
        entries = parts.allocations.list(map_name=name)
        resp.media = {
            **representation.allocation_map(found),
            "counts": representation.counts(entries),
            "allocations": parts.show(entries),
        }

    def on_put(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Replace the whole map, or plan it."""
        parts = self._parts
        name = operation.NAME.value(name)
        dry_run = self.operations["PUT"].read_query(req).get("dry_run", False)
        parts.rights.require(req, f"kongming:map:{'plan' if dry_run else 'set'}")
        requested, generation = parts.bodies.read(req, "allocations", self._read)
        if dry_run:
            with preconditions.holds(req, generation) as known:
                dropped = parts.allocations.check_map(name, requested, generation=known)
            resp.media = {"name": name, **self._plan(requested, dropped)}
            return
        with preconditions.holds(req, generation) as known:
            found, created, changed = parts.allocations.put_map(
                name,
                requested,
                generation=known,
                requested_by=identity.requested_by(req),
                request_id=identity.request_id(req),
            )
        self._notify(changed)
        resp.status = 201 if created else 200
        resp.media = representation.allocation_map(found)

    def on_delete(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Release all its instances."""
        parts = self._parts
        parts.rights.require(req, "kongming:map:delete")
        name = operation.NAME.value(name)
        query = self.operations["DELETE"].read_query(req)
        with preconditions.holds(req, query.get("generation")) as known:
            changed = parts.allocations.delete_map(
                name,
                generation=known,
                requested_by=identity.requested_by(req),
                request_id=identity.request_id(req),
            )
        self._notify(changed)
        remaining = parts.allocations.get_map(name)
        resp.status = 204 if remaining is None else 202
        if remaining is not None:
            resp.media = representation.allocation_map(remaining)

    def _plan(self, requested: Mapping[str, Allocation], dropped: list[str]) -> dict[str, Any]:
        conductor = self._parts.conductor
        together = {**requested, **dict.fromkeys(dropped)}
        # The call has a time limit of its own.
        plans = self._parts.waiting.wait_for(lambda: conductor.plan_all(together))
        return {
            "counts": dict(Counter(plan["outcome"] for plan in plans.values())),
            "plans": [{"instance_uuid": uuid, **plan} for uuid, plan in plans.items()],
        }

    def _is_settled(self, name: str) -> bool:
        unsettled = (status for status in Status if status.is_listed and not status.is_settled)
        found = self._parts.allocations
        return not any(found.list(map_name=name, status=each, limit=1) for each in unsettled)

    def _notify(self, changed: list[str]) -> None:
        if changed:
            self._parts.conductor.changed(changed)

    def _read(self, written: object) -> dict[str, Allocation]:
        if not isinstance(written, dict):
            raise errors.BodyInvalid(
                "allocations is not an object of instance UUIDs and their allocations"
            )
        if len(written) > self._parts.max_instances:
            raise errors.BodyInvalid(
                f"allocations: {len(written)} instances exceed [api] max_map_instances, "
                f"{self._parts.max_instances}: use several maps"
            )
        found: dict[str, Allocation] = {}
        problems: list[str] = []
        for key, value in written.items():
            if len(problems) >= json_schema.PROBLEMS_MAX:
                break
            try:
                uuid = operation.INSTANCE_UUID.value(key)
                found[uuid] = read(f"allocations.{uuid}", value)
            except errors.BodyInvalid as error:
                problems += error.details
            except exception.RequestInvalid as error:
                problems.append(f"allocations: {error}")
        if problems:
            raise errors.BodyInvalid(*problems)
        return found
