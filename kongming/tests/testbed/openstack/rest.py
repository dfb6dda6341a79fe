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

"""OpenStack's APIs, spoken to as its administrator: JSON over HTTP, no client library."""

from __future__ import annotations

import http.client
import json
from typing import Any
import urllib.error
import urllib.request

from kongming.tests.testbed.openstack.site import PASSWORD, Site

TIMEOUT = 120
# How each service names the version of its API.
VERSIONS = {"nova": "compute 2.76", "placement": "placement 1.4"}

# Whatever proxy the machine uses, these services are on this very machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ApiError(Exception):
    """A request was answered with an error."""

    def __init__(self, what: str, status: int, body: str) -> None:
        super().__init__(f"{what}: {status} {body}")
        self.status = status


class Rest:
    """Requests to the services of one site, with a token of the administrator's."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._token: str | None = None

    def get(self, service: str, path: str) -> Any:
        return self.request("GET", service, path)

    def post(self, service: str, path: str, body: Any) -> Any:
        return self.request("POST", service, path, body)

    def request(self, method: str, service: str, path: str, body: Any = None) -> Any:
        """Send a request; the answer's JSON, None if it has none.

        :param body: bytes are sent as they are, anything else as JSON
        :raises ApiError: the answer is an error
        """
        headers = {"X-Auth-Token": self._authenticated()}
        if service in VERSIONS:
            headers["OpenStack-API-Version"] = VERSIONS[service]
        _, answer = _send(method, self._site.url(service) + path, body, headers)
        return answer

    def _authenticated(self) -> str:
        if self._token is None:
            domain = {"id": "default"}
            user = {"name": "admin", "domain": domain, "password": PASSWORD}
            request = {
                "identity": {"methods": ["password"], "password": {"user": user}},
                "scope": {"project": {"name": "admin", "domain": domain}},
            }
            url = f"{self._site.identity_url}/auth/tokens"
            headers, _ = _send("POST", url, {"auth": request}, {})
            self._token = headers["X-Subject-Token"]
        return self._token


def answers(url: str) -> bool:
    """Whether a service answers there, even if it refuses this request."""
    try:
        _opener.open(url, timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code < http.HTTPStatus.INTERNAL_SERVER_ERROR
    except (OSError, http.client.HTTPException):
        return False
    return True


def _send(method: str, url: str, body: Any, headers: dict[str, str]) -> tuple[Any, Any]:
    raw = isinstance(body, bytes)
    data = body if raw or body is None else json.dumps(body).encode()
    kind = "application/octet-stream" if raw else "application/json"
    request = urllib.request.Request(
        url, data, {"Content-Type": kind, "Accept": "application/json", **headers}, method=method
    )
    try:
        with _opener.open(request, timeout=TIMEOUT) as response:
            answer = response.read()
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode(errors="replace")
        raise ApiError(f"{method} {url}", error.code, text) from None
    return response.headers, json.loads(answer) if answer else None
