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
"""The client of the REST API: paths, pages and errors.

It returns the API's JSON unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import copy
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from keystoneauth1 import exceptions as keystone
from keystoneauth1.adapter import Adapter
from openstack import exceptions

from kongming.client import endpoints, responses
from kongming.client.endpoints import Settings
from kongming.client.responses import Fault

_PREFIX = "/v1"
# The required fields of an answer: their types, or their text.
_Shape = Mapping[str, type | str]

#: The time limit of a response; a map of thousands of instances takes some seconds.
RESPONSE_S = 60.0

_SETTINGS = Settings()

# Libraries refuse 0.
_TIMEOUT_MIN_S = 0.001

_ALLOCATION: _Shape = {"instance_uuid": str, "generation": int, "status": str}
_MAP: _Shape = {"name": str, "generation": int, "instances": int}
_PLAN: _Shape = {"outcome": str, "warnings": list, "steps": list}
_HOST: _Shape = {"name": str, "state": str}


class Client:
    """A client of Kongming's API.

    Every method raises :class:`Fault` if the API gives no valid answer.

    :param adapter: of the service type ``kongming``, with the requested microversion.
    :param response_s: the time limit of a response.
    :param settings: how the user sets the API's address.
    """

    def __init__(
        self,
        adapter: Adapter,
        response_s: float = RESPONSE_S,
        settings: Settings = _SETTINGS,
    ) -> None:
        self._adapter = adapter
        self._settings = settings
        self._response_s = response_s
        self._left: Callable[[], float] | None = None
        self._to_wait: Callable[[], int] | None = None

    def within(
        self, left: Callable[[], float], to_wait: Callable[[], int] | None = None
    ) -> Client:
        """Return a client whose requests have a further time limit.

        :param left: returns the remaining seconds.
        :param to_wait: returns the seconds that the API may wait for the outcome of an
            allocation or a map before it responds.
        """
        bounded = copy.copy(self)
        bounded._left, bounded._to_wait = left, to_wait
        return bounded

    def allocations(self, limit: int | None = None, **filters: str | None) -> Iterator[Any]:
        """List allocations.

        :param limit: the maximum number; None means all.
        :param filters: ``host``, ``project_id``, ``status``, ``map``.
        """
        return self._pages("/allocations", "allocations", _ALLOCATION, limit, filters)

    def allocation(self, instance_uuid: str) -> dict[str, Any]:
        """Return the desired allocation of an instance, and its outcome."""
        shape = _allocation(instance_uuid)
        return self._dict("GET", _of_instance(instance_uuid), shape, self._wait())

    def set_allocation(
        self, instance_uuid: str, allocation: Mapping[str, Any], generation: int | None = None
    ) -> dict[str, Any]:
        """Set the allocation of an instance; see the API for ``generation``."""
        body = {"allocation": allocation, **_without_none(generation=generation)}
        shape = _allocation(instance_uuid)
        return self._dict("PUT", _of_instance(instance_uuid), shape, body=body)

    def plan(self, instance_uuid: str, allocation: Mapping[str, Any]) -> dict[str, Any]:
        """Return the plan of an allocation (dry run)."""
        path, body = _of_instance(instance_uuid), {"allocation": allocation}
        return self._dict("PUT", path, _PLAN, {"dry_run": "true"}, body)

    def unset_allocation(
        self, instance_uuid: str, generation: int | None = None
    ) -> dict[str, Any] | None:
        """Release an instance; return None if that is complete."""
        query = _without_none(generation=generation)
        shape = _allocation(instance_uuid)
        return self._answer("DELETE", _of_instance(instance_uuid), shape, query)

    def history(self, instance_uuid: str, limit: int | None = None) -> Iterator[Any]:
        """List the requests for an instance, oldest first."""
        path = f"{_of_instance(instance_uuid)}/history"
        return self._pages(path, "history", {"generation": int}, limit)

    def maps(self, limit: int | None = None) -> Iterator[Any]:
        """List the allocation maps."""
        return self._pages("/allocation-maps", "allocation_maps", _MAP, limit)

    def map(self, name: str) -> dict[str, Any]:
        """Return an allocation map with its allocations."""
        shape: _Shape = {**_MAP, "name": name, "allocations": list}
        found = self._dict("GET", _of_map(name), shape, self._wait())
        for each in found["allocations"]:
            _check(each, _ALLOCATION)
        return found

    def apply_map(
        self, name: str, allocations: Mapping[str, Any], generation: int | None = None
    ) -> dict[str, Any]:
        """Set an allocation map; instances that are no longer in it are released."""
        body = {"allocations": allocations, **_without_none(generation=generation)}
        return self._dict("PUT", _of_map(name), {**_MAP, "name": name}, body=body)

    def plan_map(
        self, name: str, allocations: Mapping[str, Any], generation: int | None = None
    ) -> dict[str, Any]:
        """Return the plans of a map's instances (dry run)."""
        body = {"allocations": allocations, **_without_none(generation=generation)}
        shape: _Shape = {"name": name, "counts": dict, "plans": list}
        found = self._dict("PUT", _of_map(name), shape, {"dry_run": "true"}, body)
        for each in found["plans"]:
            _check(each, {"instance_uuid": str, **_PLAN})
        return found

    def delete_map(self, name: str, generation: int | None = None) -> dict[str, Any] | None:
        """Release all instances of a map; return None if that is complete."""
        query = _without_none(generation=generation)
        return self._answer("DELETE", _of_map(name), {**_MAP, "name": name}, query)

    def hosts(self, limit: int | None = None) -> Iterator[Any]:
        """List the known hosts."""
        return self._pages("/hosts", "hosts", _HOST, limit)

    def host(self, name: str) -> dict[str, Any]:
        """Return a host with its snapshot."""
        return self._dict("GET", f"/hosts/{_segment(name)}", {**_HOST, "name": name})

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of an allocation."""
        return self._dict("GET", "/schemas/allocation", {"$schema": str})

    def _wait(self) -> dict[str, Any]:
        seconds = self._to_wait() if self._to_wait else 0
        return {"wait_s": seconds} if seconds > 0 else {}

    def _pages(
        self,
        path: str,
        field: str,
        shape: _Shape,
        limit: int | None,
        filters: Mapping[str, str | int | None] | None = None,
    ) -> Iterator[Any]:
        query: dict[str, Any] = _without_none(**filters or {}, limit=limit)
        left = limit
        while True:
            page = self._dict("GET", path, {field: list, "links": list}, query)
            for each in page[field]:
                _check(each, shape)
            for each in page["links"]:
                _check(each, {})
            yield from page[field][:left]
            left = None if left is None else left - len(page[field])
            following = [link.get("href") for link in page["links"] if link.get("rel") == "next"]
            if not following or (left is not None and left <= 0):
                return
            # Only the query, because the address may be one that only a proxy can reach.
            query = dict(parse_qsl(urlsplit(str(following[0])).query))

    def _dict(
        self,
        method: str,
        path: str,
        shape: _Shape,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        answer = self._answer(method, path, shape, query, body)
        if answer is None:
            raise Fault(f"{method} {path}: the response has no body: is this Kongming's API?")
        return answer

    def _answer(
        self,
        method: str,
        path: str,
        shape: _Shape,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any] | None:
        """Send a request and return the body of the response; None if it has none."""
        response = self._send(path, method, query or {}, {} if body is None else {"json": body})
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            raise responses.of_answer(response)
        if response.status_code == HTTPStatus.NO_CONTENT:
            return None
        try:
            answer = response.json()
        except (ValueError, RecursionError):
            answer = None
        return _check(answer, shape, str(response.url))

    def _send(
        self, path: str, method: str, query: Mapping[str, Any], body: Mapping[str, Any]
    ) -> Any:
        seconds = self._response_s if self._left is None else min(self._response_s, self._left())

        def send() -> Any:
            return self._adapter.request(
                self._base() + path,
                method,
                params=dict(query),
                raise_exc=False,
                timeout=max(seconds, _TIMEOUT_MIN_S),
                **body,
            )

        try:
            return send() if self._left is None else responses.bounded(send, seconds)
        except keystone.EndpointNotFound as error:
            raise Fault(endpoints.explain(self._adapter, self._settings), sent=False) from error
        except keystone.ClientException as error:
            raise responses.of_exception(error, seconds) from error

    def _base(self) -> str:
        """Return the path of the major version, unless the endpoint ends with it."""
        endpoint = self._adapter.get_endpoint() or ""
        try:
            path = urlsplit(endpoint).path
        except ValueError:
            raise Fault(f"{endpoint!r} is not the address of an API", sent=False) from None
        return "" if path.rstrip("/").endswith(_PREFIX) else _PREFIX


def _check(answer: Any, shape: _Shape, url: str = "Kongming's API") -> dict[str, Any]:
    """Return an answer, or a part of it, if it has the form of the API's answers.

    :raises Fault: if it has another form.
    """
    if not isinstance(answer, dict):
        raise Fault(
            f"{url} did not respond with a JSON object, as Kongming's API does: the response is "
            "from a proxy or another service, or the address is wrong"
        )
    for name, expected in shape.items():
        value = answer.get(name)
        if isinstance(expected, str):
            # Some databases ignore case.
            fits = isinstance(value, str) and value.casefold() == expected.casefold()
        else:
            fits = isinstance(value, expected)
        if not fits:
            raise Fault(f"the response of {url} has no valid {name}: is this Kongming's API?")
    return answer


def _allocation(instance_uuid: str) -> _Shape:
    return {**_ALLOCATION, "instance_uuid": instance_uuid}


def _of_instance(instance_uuid: str) -> str:
    return f"/allocations/{_segment(instance_uuid)}"


def _of_map(name: str) -> str:
    return f"/allocation-maps/{_segment(name)}"


def _segment(name: str) -> str:
    """Return a name as a segment of a path."""
    if name in ("", ".", ".."):
        # HTTP libraries resolve these as steps in the path.
        raise exceptions.InvalidRequest(f"{name!r} is not a name")
    return quote(name, safe="")


def _without_none(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
