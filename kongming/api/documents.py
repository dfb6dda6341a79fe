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
"""Public resources: the versions of the API, and its documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import falcon

from kongming.allocation import json_schema
from kongming.api import microversion
from kongming.api.operation import Operation, Resource


def _version(req: falcon.Request) -> dict[str, Any]:
    return {
        "id": "v1",
        "status": "CURRENT",
        "version": microversion.MAX_VERSION,
        "min_version": microversion.MIN_VERSION,
        "links": [{"rel": "self", "href": f"{req.prefix}/v1"}],
    }


class Versions(Resource):
    """The versions of the API."""

    path: ClassVar[str] = "/"
    operations: ClassVar[Mapping[str, Operation]] = {
        "GET": Operation("List the versions of the API.", {200: "Versions"}, public=True)
    }

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List them."""
        resp.media = {"versions": [_version(req)]}


class Version(Resource):
    """The current version of the API."""

    path: ClassVar[str] = "/v1"
    operations: ClassVar[Mapping[str, Operation]] = {
        "GET": Operation("Show a version of the API.", {200: "Version"}, public=True)
    }

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Show it."""
        resp.media = {"version": _version(req)}


class AllocationSchema(Resource):
    """The JSON Schema of an allocation."""

    path: ClassVar[str] = "/v1/schemas/allocation"
    operations: ClassVar[Mapping[str, Operation]] = {
        "GET": Operation("Show the JSON Schema of an allocation.", {200: "Document"}, public=True)
    }

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Show it."""
        resp.media = json_schema.ALLOCATION


class OpenApi(Resource):
    """The OpenAPI document."""

    path: ClassVar[str] = "/openapi.json"
    operations: ClassVar[Mapping[str, Operation]] = {
        "GET": Operation("Show the OpenAPI document.", {200: "Document"}, public=True)
    }

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Show it."""
        resp.media = self._document
