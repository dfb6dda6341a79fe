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

"""Nova's API and Keystone's, as far as Kongming uses them, over real HTTP.

What a real Nova rarely does on request, this one does: it is slow, down, overloaded,
forgetful of tokens, less obliging to the unprivileged, or answers garbage.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
import re
import threading
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit
import uuid

PASSWORD = "sesame"
PROJECT = "0f2b9b9e3d1c4c4e8f3a7d5b6c1e2f30"


@dataclass
class Fault:
    """What comes instead of an answer.

    :ivar delay: the seconds before it comes.
    :ivar released: what it waits for instead.
    :ivar times: how often; then all is well again.
    """

    status: int = 500
    body: str = "{}"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    released: threading.Event | None = None
    times: float = float("inf")


@dataclass
class FakeServer:
    """A server, as Nova knows it."""

    host: str | None
    metadata: dict[str, str]
    name: str = ""
    status: str = "ACTIVE"
    updated: str = ""

    def touch(self) -> None:
        self.updated = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class NovaApi:
    """The two services at one port; a context manager.

    :ivar requests: method and path, with its query, of each request to Nova.
    :ivar fault: what is wrong with Nova now, if anything.
    :ivar privileged: whether the service user may filter by host and UUID.
    :ivar tells_hosts: whether it may see on which host a server is.
    :ivar page: the most servers on one page.
    :ivar clock_s: by how many seconds its clock is ahead of ours.
    :ivar regions: the regions of Keystone's catalogue, and where the Nova of each is.
    """

    def __init__(self) -> None:
        self.servers: dict[str, FakeServer] = {}
        self.requests: list[str] = []
        self.fault: Fault | None = None
        self.privileged = True
        self.tells_hosts = True
        self.page = 1000
        self.clock_s = 0.0
        self.regions = {"RegionOne": ""}
        self.tokens: set[str] = set()
        self._http: ThreadingHTTPServer | None = None
        self._port = 0

    def __enter__(self) -> NovaApi:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def up(self) -> None:
        """Begin to serve; later at the same port as before."""
        handler = type("Handler", (_Handler,), {"api": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", self._port), handler)
        self._port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def down(self) -> None:
        """Let nobody connect."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    @property
    def serves(self) -> bool:
        """Tell whether it is up: connections of before may still be open."""
        return self._http is not None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def options(self, more: str = "") -> str:
        """The group of kongming.conf that leads here."""
        return (
            "[nova]\nauth_type = password\n"
            f"auth_url = {self.url}/identity/v3\nusername = kongming\npassword = {PASSWORD}\n"
            "user_domain_id = default\nproject_name = service\nproject_domain_id = default\n"
            f"region_name = RegionOne\nvalid_interfaces = internal\nstart_spread = 0\n{more}"
        )

    def add(
        self,
        host: str | None,
        metadata: dict[str, str],
        *,
        instance_uuid: str | None = None,
        name: str = "",
    ) -> str:
        """Make a server; its UUID."""
        known = instance_uuid or str(uuid.uuid4())
        self.servers[known] = FakeServer(host, dict(metadata), name)
        self.touch(known)
        return known

    def touch(self, instance_uuid: str) -> None:
        """Note that a server has changed now, by Nova's clock."""
        moment = datetime.fromtimestamp(time.time() + self.clock_s, UTC)
        self.servers[instance_uuid].updated = moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    def authenticate(self, request: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        user = request["auth"]["identity"]["password"]["user"]
        if user["password"] != PASSWORD:
            return 401, {"error": {"code": 401, "message": "The request you have made..."}}, {}
        token = uuid.uuid4().hex
        self.tokens.add(token)
        catalog = [
            {
                "type": "compute",
                "name": "nova",
                "id": "2",
                "endpoints": [
                    {
                        "id": f"{region}-{interface}",
                        "region": region,
                        "region_id": region,
                        "interface": interface,
                        "url": f"{self.url}{path}/compute/v2.1",
                    }
                    for region, path in self.regions.items()
                    for interface in ("public", "internal")
                ],
            }
        ]
        body = {
            "methods": ["password"],
            "user": {"id": "u", "name": "kongming", "domain": {"id": "default"}},
            "project": {"id": "p", "name": "service", "domain": {"id": "default"}},
            "roles": [],
            "catalog": catalog,
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "expires_at": "2099-01-01T00:00:00.000000Z",
        }
        return 201, {"token": body}, {"X-Subject-Token": token}

    def list(self, query: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        """Answer ``GET /servers/detail``, and ``GET /servers`` with more than Nova does."""
        if "all_tenants" in query and not self.privileged:
            return 403, {"forbidden": {"code": 403, "message": "Policy does not allow it."}}, {}
        rows = sorted(self.servers.items())
        rows = [each for each in rows if re.search(query.get("name", ""), each[1].name)]
        since = query.get("changes-since")
        if since:
            rows = [(known, one) for known, one in rows if one.updated >= since]
        else:
            # Of one that can be restored only requests for changes are answered.
            rows = [(known, one) for known, one in rows if not one.status.endswith("DELETED")]
        if self.privileged:
            host, only = query.get("host"), query.get("uuid")
            rows = [(known, one) for known, one in rows if host in (None, one.host)]
            rows = [(known, one) for known, one in rows if only in (None, known)]
        if "marker" in query:
            rows = [(known, one) for known, one in rows if known > query["marker"]]
        limit = min(int(query.get("limit", self.page)), self.page)
        body: dict[str, Any] = {"servers": [self._row(*row) for row in rows[:limit]]}
        if len(rows) > limit:
            body["servers_links"] = [{"rel": "next", "href": "..."}]
        return 200, body, {}

    def show(self, instance_uuid: str) -> tuple[int, Any, dict[str, str]]:
        """Answer ``GET /servers/{id}``."""
        server = self.servers.get(instance_uuid)
        if server is None or server.status.endswith("DELETED"):
            message = f"Instance {instance_uuid} could not be found."
            return 404, {"itemNotFound": {"code": 404, "message": message}}, {}
        return 200, {"server": self._row(instance_uuid, server)}, {}

    def _row(self, instance_uuid: str, server: FakeServer) -> dict[str, Any]:
        row: dict[str, Any] = {
            "id": instance_uuid,
            "name": server.name,
            "status": server.status,
            "tenant_id": PROJECT,
            "metadata": server.metadata,
            "updated": server.updated,
        }
        if self.tells_hosts:
            row["OS-EXT-SRV-ATTR:host"] = server.host
        return row


class _Handler(BaseHTTPRequestHandler):
    api: NovaApi
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Give the header Date, by Nova's clock."""
        return super().date_time_string(
            int((time.time() if timestamp is None else timestamp) + self.api.clock_s)
        )

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(*self.api.authenticate(request))

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        path = address.path.rstrip("/")
        if path.startswith("/identity"):
            self._answer(200, {"version": _version("v3.14", f"{self.api.url}/identity/v3")}, {})
        elif path in ("/compute/v2.1", "/compute"):
            compute = _version("v2.1", f"{self.api.url}/compute/v2.1/")
            self._answer(
                200, {"version": {**compute, "version": "2.100", "min_version": "2.1"}}, {}
            )
        else:
            self._nova(path.removeprefix("/compute/v2.1"), query)

    def _nova(self, path: str, query: dict[str, str]) -> None:
        api, fault = self.api, self.api.fault
        if not api.serves:
            self.close_connection = True
            return
        api.requests.append(f"GET {self.path.removeprefix('/compute/v2.1')}")
        if self.headers.get("X-Auth-Token") not in api.tokens:
            self._answer(401, {"error": {"code": 401, "message": "Unauthorized"}}, {})
            return
        if fault is not None and fault.times > 0:
            fault.times -= 1
            if fault.released is not None:
                fault.released.wait()
            time.sleep(fault.delay)
            if fault.status:
                self._send(fault.status, fault.body.encode(), fault.headers)
                return
        if path in ("/servers", "/servers/detail"):
            self._answer(*api.list(query))
        else:
            self._answer(*api.show(path.rpartition("/")[2]))

    def _answer(self, status: int, body: Any, headers: dict[str, str]) -> None:
        self._send(status, json.dumps(body).encode(), headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _version(name: str, url: str) -> dict[str, Any]:
    links = [{"rel": "self", "href": url}]
    return {"id": name, "status": "CURRENT", "links": links, "media-types": []}
