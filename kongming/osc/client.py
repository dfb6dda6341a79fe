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
"""The client of the REST API: paths, pages and errors; nothing is decided here.

What it gives is the API's JSON as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from keystoneauth1 import exceptions as keystone
from keystoneauth1.adapter import Adapter
from osc_lib import exceptions

from kongming.escaping import escape

_PREFIX = "/v1"
_KINDS: dict[int, type[exceptions.ClientException]] = {
    kind.http_status: kind
    for kind in (
        exceptions.BadRequest,
        exceptions.Unauthorized,
        exceptions.Forbidden,
        exceptions.NotFound,
        exceptions.Conflict,
        exceptions.OverLimit,
        exceptions.HTTPNotImplemented,
    )
}


class NoAnswer(exceptions.CommandError):
    """The API can't be reached."""

    def __init__(self, message: str) -> None:
        super().__init__(escape(message))


class Client:
    """Kongming's API.

    Every method raises one of osc_lib's exceptions: ``ClientException``, whose
    message holds the API's reason code and what it says, or ``CommandError``
    if no answer came.

    :param adapter: of the service type ``kongming``, with the microversion
        that is asked for.
    """

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._prefix: str | None = None

    def allocations(self, limit: int | None = None, **filters: str | None) -> Iterator[Any]:
        """List allocations.

        :param limit: how many at most; None means all.
        :param filters: ``host``, ``project_id``, ``status``, ``map``.
        """
        return self._pages("/allocations", "allocations", limit, filters)

    def allocation(self, instance_uuid: str) -> dict[str, Any]:
        """Give what is wanted for an instance, and what came of it."""
        return self._dict("GET", _of_instance(instance_uuid))

    def set_allocation(
        self, instance_uuid: str, allocation: Mapping[str, Any], generation: int | None = None
    ) -> dict[str, Any]:
        """Want an allocation for an instance; see the API for ``generation``."""
        body = {"allocation": allocation, **_known(generation=generation)}
        return self._dict("PUT", _of_instance(instance_uuid), body=body)

    def plan(self, instance_uuid: str, allocation: Mapping[str, Any]) -> dict[str, Any]:
        """Ask what would be done, and do nothing."""
        path, body = _of_instance(instance_uuid), {"allocation": allocation}
        return self._dict("PUT", path, {"dry_run": "true"}, body)

    def unset_allocation(
        self, instance_uuid: str, generation: int | None = None
    ) -> dict[str, Any] | None:
        """Want nothing any more for an instance; gives None if that is all."""
        return self._answer("DELETE", _of_instance(instance_uuid), _known(generation=generation))

    def history(self, instance_uuid: str, limit: int | None = None) -> Iterator[Any]:
        """List what was wanted for an instance, the oldest first."""
        return self._pages(f"{_of_instance(instance_uuid)}/history", "history", limit)

    def maps(self, limit: int | None = None) -> Iterator[Any]:
        """List the allocation maps."""
        return self._pages("/allocation-maps", "allocation_maps", limit)

    def map(self, name: str) -> dict[str, Any]:
        """Give an allocation map with its allocations."""
        return self._dict("GET", _of_map(name))

    def apply_map(
        self, name: str, allocations: Mapping[str, Any], generation: int | None = None
    ) -> dict[str, Any]:
        """Want an allocation map; what is not in it any more is released."""
        body = {"allocations": allocations, **_known(generation=generation)}
        return self._dict("PUT", _of_map(name), body=body)

    def delete_map(self, name: str, generation: int | None = None) -> dict[str, Any] | None:
        """Release all of an allocation map; gives None if that is all."""
        return self._answer("DELETE", _of_map(name), _known(generation=generation))

    def hosts(self, limit: int | None = None) -> Iterator[Any]:
        """List the hosts whose executors were heard of."""
        return self._pages("/hosts", "hosts", limit)

    def host(self, name: str) -> dict[str, Any]:
        """Give a host and what it looks like."""
        return self._dict("GET", f"/hosts/{_segment(name)}")

    def _pages(
        self,
        path: str,
        field: str,
        limit: int | None,
        filters: Mapping[str, str | int | None] | None = None,
    ) -> Iterator[Any]:
        query: dict[str, Any] = _known(**filters or {}, limit=limit)
        left = limit
        while True:
            page = self._dict("GET", path, query)
            yield from page[field][:left]
            left = None if left is None else left - len(page[field])
            following = [link["href"] for link in page["links"] if link["rel"] == "next"]
            if not following or (left is not None and left <= 0):
                return
            # Its host may be one that only a proxy knows.
            query = dict(parse_qsl(urlsplit(following[0]).query))

    def _dict(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        answer = self._answer(method, path, query, body)
        if answer is None:
            raise NoAnswer(f"{method} {path} was answered without a body: is that Kongming's API?")
        return answer

    def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any] | None:
        """Ask, and give the body of the answer; None if it has none."""
        more = {} if body is None else {"json": body}
        try:
            response = self._adapter.request(
                self._base() + path, method, params=dict(query or {}), raise_exc=False, **more
            )
        except keystone.EndpointNotFound as error:
            raise NoAnswer(
                "the service catalogue has no endpoint of the type kongming: name it with "
                "--os-kongming-endpoint"
            ) from error
        except (keystone.ConnectFailure, keystone.RetriableConnectionFailure) as error:
            raise NoAnswer(f"Kongming's API can't be reached: {error}") from error
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            raise _error(response)
        if response.status_code == HTTPStatus.NO_CONTENT:
            return None
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise NoAnswer(f"{response.url} answers with something else than a JSON object")
        return answer

    def _base(self) -> str:
        """Give the path of the major version, unless the endpoint ends with it."""
        if self._prefix is None:
            endpoint = self._adapter.get_endpoint() or ""
            self._prefix = "" if urlsplit(endpoint).path.rstrip("/").endswith(_PREFIX) else _PREFIX
        return self._prefix


def _of_instance(instance_uuid: str) -> str:
    return f"/allocations/{instance_uuid}"


def _of_map(name: str) -> str:
    return f"/allocation-maps/{_segment(name)}"


def _segment(name: str) -> str:
    """Give a name as it is in a path."""
    if name in ("", ".", ".."):
        # HTTP libraries take these for steps in the path.
        raise exceptions.CommandError(f"{name!r} is not a name")
    return quote(name, safe="")


def _known(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _error(response: Any) -> exceptions.ClientException:
    """Make the exception of an answer that is an error, whoever gave it."""
    status = response.status_code
    try:
        told = response.json()["errors"][0]
        message, details = f"{told['code']}: {told['detail']}", told.get("request_id")
    except (ValueError, LookupError, TypeError):
        message, details = f"{response.reason} ({response.url})", None
    if details and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        message += f" ({details})"
    kind = _KINDS.get(status, exceptions.ClientException)
    return kind(status, escape(message), None if details is None else escape(str(details)))
