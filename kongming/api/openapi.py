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
"""The OpenAPI document, made from the operations of the resources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import json
from typing import Any

from kongming.allocation import json_schema
from kongming.allocation.statuses import LISTED
from kongming.api import microversion, operation, preconditions
from kongming.api.operation import Described, Operation, Parameter
from kongming.conf.api import MAP_INSTANCES_MAX

OPENAPI = "3.1.0"

_TEXT = {"type": "string"}
_MAYBE_TEXT = {"type": ["string", "null"]}
_MOMENT = {"type": "string", "format": "date-time"}
_MAYBE_MOMENT = {"type": ["string", "null"], "format": "date-time"}
_COUNT = {"type": "integer", "minimum": 0}
_UUID = {"type": "string", "pattern": operation.UUID}
_GENERATION = {
    "type": ["integer", "null"],
    "minimum": 0,
    "maximum": operation.GENERATION_MAX,
    "description": "Fail with 409 unless the current generation equals this value; 0: it must "
    "not exist yet. If omitted, replace unconditionally.",
}

_REASON = {
    400: "The request is malformed, or what it requests is impossible.",
    401: "The request has no valid token.",
    403: "The caller is not allowed to do this.",
    404: "No such resource, or it belongs to another project.",
    406: "No such microversion.",
    409: "The resource was changed meanwhile, or the instance belongs to another map.",
    411: "The WSGI server does not support chunked bodies.",
    412: "The condition of If-Match or If-None-Match does not hold.",
    413: "The body is too long.",
    415: "The body is not JSON.",
    500: "A fault of Kongming; the API's log has the details.",
    503: "The database, Keystone, a conductor or the host is unavailable, or too many requests "
    "wait.",
}
_ALWAYS = (400, 406, 500, 503)
_IDENTIFIED = (401, 403)


def _object(optional: Iterable[str] = (), **properties: Mapping[str, Any]) -> dict[str, Any]:
    required = [name for name in properties if name not in set(optional)]
    return {
        "type": "object",
        "properties": dict(properties),
        "required": required,
        "additionalProperties": False,
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(of: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


def _desired() -> dict[str, Any]:
    return {name: value for name, value in json_schema.ALLOCATION.items() if name != "$schema"}


_PLAN_STEP = _object(target=_TEXT, **{"from": _TEXT}, to=_TEXT, grant=_TEXT)

_ROW: dict[str, Any] = {
    "instance_uuid": _UUID,
    "generation": _COUNT,
    "project_id": _MAYBE_TEXT,
    "host": _MAYBE_TEXT,
    "map": _MAYBE_TEXT,
    "allocation": {"oneOf": [_ref("DesiredAllocation"), {"type": "null"}]},
    "status": {"type": "string", "enum": list(LISTED)},
    "reason": _TEXT,
    "message": _TEXT,
    "source": _MAYBE_TEXT,
    "last_drift": _TEXT,
    "last_drift_at": _MAYBE_MOMENT,
    "unobserved": _MAYBE_TEXT,
    "reported_by": _MAYBE_TEXT,
    "reported_at": _MAYBE_MOMENT,
    "report_age_s": {"type": ["number", "null"], "minimum": 0},
    "host_state": {"type": "string", "enum": ["up", "unresponsive", "unknown"]},
    "created_at": _MOMENT,
    "updated_at": _MOMENT,
}
_ALLOCATION = _object(**_ROW, window=_MAYBE_TEXT, next_change=_MAYBE_MOMENT)
_PLAN = _object(
    instance_uuid=_UUID,
    host=_MAYBE_TEXT,
    outcome={"type": "string", "enum": ["planned", "refused", "failed", "absent"]},
    reason=_TEXT,
    message=_TEXT,
    warnings=_list(_TEXT),
    steps=_list(_PLAN_STEP),
)
_OUTCOME_OF_MAP = {
    "type": "string",
    "enum": ["planned", "refused", "failed", "absent", "unresponsive"],
}
_CHANGE = _object(
    id=_COUNT,
    generation=_COUNT,
    allocation={"oneOf": [_ref("DesiredAllocation"), {"type": "null"}]},
    map=_MAYBE_TEXT,
    requested_by=_TEXT,
    request_id=_TEXT,
    requested_at=_MOMENT,
    status=_TEXT,
    reason=_TEXT,
    message=_TEXT,
    host=_MAYBE_TEXT,
    changed_at=_MOMENT,
)
_MAP: dict[str, Any] = {
    "name": {"type": "string", "pattern": operation.MAP_NAME},
    "generation": _COUNT,
    "deleting": {"type": "boolean"},
    "instances": _COUNT,
    "created_at": _MOMENT,
    "updated_at": _MOMENT,
}
_HOST: dict[str, Any] = {
    "name": _TEXT,
    "state": {"type": "string", "enum": ["up", "unresponsive"]},
    "heartbeat_at": _MOMENT,
    "heartbeat_age_s": {"type": "number", "minimum": 0},
    "started_at": _MOMENT,
    "version": _TEXT,
    "guests": _COUNT,
    "violations": _COUNT,
}
_ERROR = _object(
    status={"type": "integer"}, code=_TEXT, title=_TEXT, detail=_TEXT, request_id=_TEXT
)
_LINK = _object(rel=_TEXT, href={"type": "string", "format": "uri"})
_VERSION = _object(
    id=_TEXT,
    status=_TEXT,
    version=_TEXT,
    min_version=_TEXT,
    links=_list(_object(rel=_TEXT, href=_TEXT)),
)

SCHEMAS: dict[str, Any] = {
    "DesiredAllocation": _desired(),
    "Allocation": _ALLOCATION,
    "Plan": _PLAN,
    "AllocationOrPlan": {"oneOf": [_ref("Allocation"), _ref("Plan")]},
    "AllocationBody": _object(
        ["generation"], allocation=_ref("DesiredAllocation"), generation=_GENERATION
    ),
    "AllocationRow": _object(**_ROW),
    "AllocationList": _object(allocations=_list(_ref("AllocationRow")), links=_list(_LINK)),
    "History": _object(history=_list(_CHANGE), links=_list(_LINK)),
    "Map": _object(**_MAP),
    "MapWithAllocations": _object(
        **_MAP,
        counts={"type": "object", "additionalProperties": _COUNT},
        allocations=_list(_ref("AllocationRow")),
    ),
    "MapPlan": _object(
        name={"type": "string", "pattern": operation.MAP_NAME},
        counts={"type": "object", "additionalProperties": _COUNT},
        plans=_list({**_PLAN, "properties": {**_PLAN["properties"], "outcome": _OUTCOME_OF_MAP}}),
    ),
    "MapOrPlan": {"oneOf": [_ref("Map"), _ref("MapPlan")]},
    "MapBody": _object(
        ["generation"],
        allocations={
            "type": "object",
            "maxProperties": MAP_INSTANCES_MAX,
            "description": "At most [api] max_map_instances entries.",
            "propertyNames": _UUID,
            "additionalProperties": _ref("DesiredAllocation"),
        },
        generation=_GENERATION,
    ),
    "MapList": _object(allocation_maps=_list(_ref("Map")), links=_list(_LINK)),
    "HostList": _object(hosts=_list(_object(**_HOST)), links=_list(_LINK)),
    "HostWithSnapshot": _object(
        **_HOST,
        snapshot={
            "type": ["object", "null"],
            "description": "Cells, CPUs, guests, the operator's rules and their violations, in "
            "the form of 'kongming-manage host show -f json'.",
        },
        snapshot_at=_MAYBE_MOMENT,
    ),
    "Versions": _object(versions=_list(_VERSION)),
    "Version": _object(version=_VERSION),
    "Document": {"type": "object"},
    "Errors": _object(errors=_list(_ERROR)),
}


def build(resources: Iterable[Described]) -> dict[str, Any]:
    """Return the document of some resources."""
    return {
        "openapi": OPENAPI,
        "info": {
            "title": "Kongming",
            "version": microversion.MAX_VERSION,
            "description": "Exact CPU and memory placement of Nova's instances on their hosts.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {resource.path: _path(resource) for resource in resources},
        "components": {
            "schemas": SCHEMAS,
            "headers": _HEADERS,
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}
            },
        },
    }


def _path(resource: Described) -> dict[str, Any]:
    names = [part[1:-1] for part in resource.path.split("/") if part.startswith("{")]
    found: dict[str, Any] = {
        method.lower(): _operation(method, resource.path, each)
        for method, each in resource.operations.items()
    }
    if names:
        found["parameters"] = [_parameter(_IN_PATH[name], "path") for name in names]
    return found


_IN_PATH = {each.name: each for each in (operation.INSTANCE_UUID, operation.NAME, operation.HOST)}


def _operation(method: str, path: str, each: Operation) -> dict[str, Any]:
    words = path.replace("{", "").replace("}", "").replace(".", "-").strip("/").split("/")
    statuses = [*_ALWAYS, *(() if each.public else _IDENTIFIED), *each.errors]
    found: dict[str, Any] = {
        "operationId": "-".join([method.lower(), *filter(None, words)]),
        "summary": each.summary,
        "parameters": [
            *(_parameter(one, "query") for one in each.query),
            *(_CONDITIONS if each.conditional else ()),
            _VERSION_HEADER,
        ],
        "responses": {
            **{str(status): _answer(name) for status, name in each.answers.items()},
            **{str(status): _error(status) for status in sorted(set(statuses))},
        },
        "security": [] if each.public else [{"token": []}],
    }
    if each.body is not None:
        found["requestBody"] = {"required": True, "content": _json(each.body)}
    return found


_CONDITIONS = (
    {
        "name": preconditions.IF_MATCH,
        "in": "header",
        "required": False,
        "description": "Fail with 412 unless this is the current generation.",
        "schema": {"type": "string", "pattern": r'^"[0-9]{1,9}"$', "examples": ['"3"']},
    },
    {
        "name": preconditions.IF_NONE_MATCH,
        "in": "header",
        "required": False,
        "description": "Fail with 412 if the resource exists.",
        "schema": {"type": "string", "enum": ["*"]},
    },
)
_VERSION_HEADER = {
    "name": microversion.HEADER,
    "in": "header",
    "required": False,
    "description": "The microversion. Those of other services may follow, separated by commas.",
    "schema": {
        "type": "string",
        "examples": [
            f"{microversion.SERVICE_TYPE} {version}"
            for version in (*microversion.VERSIONS, "latest")
        ],
    },
}


def _parameter(each: Parameter, where: str) -> dict[str, Any]:
    return {
        "name": each.name,
        "in": where,
        "required": where == "path",
        "description": each.description,
        "schema": each.schema,
    }


_HEADERS = {
    "RequestId": {
        "required": True,
        "description": "The id of the request, as in the history and in the API's log.",
        "schema": {"type": "string", "pattern": rf"^req-[0-9a-f-]{{36}}{operation.END}"},
    },
    "Version": {
        "required": True,
        "description": "The microversion of the response.",
        "schema": {"enum": [f"kongming {version}" for version in microversion.VERSIONS]},
    },
}
_OF_ALL = {
    "x-openstack-request-id": {"$ref": "#/components/headers/RequestId"},
    microversion.HEADER: {"$ref": "#/components/headers/Version"},
}


def _answer(name: str | None) -> dict[str, Any]:
    if name is None:
        return {"description": "Done; the response has no body.", "headers": _OF_ALL}
    return {"description": name, "headers": _OF_ALL, "content": _json(name)}


def _error(status: int) -> dict[str, Any]:
    return {"description": _REASON[status], "headers": _OF_ALL, "content": _json("Errors")}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": _ref(name)}}


if __name__ == "__main__":
    # Written to doc/source/reference/openapi.json.
    from kongming.api.resources import RESOURCES

    print(json.dumps(build(RESOURCES), indent=2))  # noqa: T201
