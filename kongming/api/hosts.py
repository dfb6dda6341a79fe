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
"""/v1/hosts: the compute hosts and their snapshots."""

from __future__ import annotations

from collections.abc import Mapping
import time
from typing import ClassVar

import falcon

from kongming import exception
from kongming.api import operation, paging, representation
from kongming.api.allocations import Parts
from kongming.api.operation import Operation, Resource
from kongming.runtime.times import written


class HostList(Resource):
    """All hosts whose executors have sent a heartbeat."""

    path: ClassVar[str] = "/v1/hosts"
    operations: ClassVar[Mapping[str, Operation]] = {
        "GET": Operation(
            "List the compute hosts by name, each with the time of its last heartbeat.",
            {200: "HostList"},
            query=(operation.LIMIT, operation.AFTER_HOST),
        )
    }

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List them."""
        parts = self._parts
        parts.rights.require(req, "kongming:host:list")
        query = self.operations["GET"].read_query(req)
        limit = paging.limit_of(query, parts.max_limit)
        found = parts.hosts.list(limit + 1, query.get("marker"), snapshots=False)
        page, more = paging.cut(found, limit)
        now = time.time()
        resp.media = {
            "hosts": [representation.host(each, now) for each in page],
            "links": paging.links(req, query, page[-1].name) if more else [],
        }


class HostItem(Resource):
    """One host."""

    path: ClassVar[str] = "/v1/hosts/{host}"
    operations: ClassVar[Mapping[str, Operation]] = {
        "GET": Operation(
            "Show a compute host: topology, guests, rules and violations.",
            {200: "HostWithSnapshot"},
            errors=(404,),
        )
    }

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def on_get(self, req: falcon.Request, resp: falcon.Response, host: str) -> None:
        """Show it."""
        self._parts.rights.require(req, "kongming:host:get")
        name = operation.HOST.value(host)
        self.operations["GET"].read_query(req)
        found = self._parts.hosts.get(name)
        if found is None:
            raise exception.HostUnknown(
                f"no kongming-executor of host {name} has ever reported: check that it runs there"
            )
        resp.media = {
            **representation.host(found, time.time()),
            "snapshot": found.snapshot,
            "snapshot_at": written(found.snapshot_at),
        }
