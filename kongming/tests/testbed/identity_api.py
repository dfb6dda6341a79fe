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

"""Keystone's API, as far as the check of tokens uses it, over real HTTP.

What a real Keystone rarely does on request, this one does: it is unresponsive, slow to come, or
its clock is another.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
import threading
from typing import Any

from kongming.tests.testbed.process import Service

OURS = "token-of-the-service"


class IdentityApi(Service):
    """Takes each token that is known for that of an administrator; a context manager.

    :ivar tokens: what each token is: the name of its user.
    :ivar ahead: how far its clock is ahead of ours.
    :ivar lifetime: how long its tokens last.
    :ivar questions: the tokens that were to be validated.
    """

    def __init__(self) -> None:
        self.tokens: dict[str, str] = {OURS: "kongming"}
        self.ahead = timedelta(0)
        self.lifetime = timedelta(hours=1)
        self.questions: list[str] = []
        self._speaking = threading.Event()
        self._speaking.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where tokens are got from, and checked at."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v3"

    @property
    def options(self) -> str:
        """The part of kongming.conf that names it."""
        return (
            f"[keystone_authtoken]\nwww_authenticate_uri = {self.url}\nauth_type = password\n"
            f"auth_url = {self.url}\nusername = kongming\npassword = sesame\n"
            "user_domain_id = default\nproject_id = service\n"
        )

    def start(self) -> None:
        """Return when it takes requests."""
        self._thread.start()

    def stop_answering(self) -> None:
        """Take requests and answer none."""
        self._speaking.clear()

    def speak(self) -> None:
        """Answer again, also the requests that came meanwhile."""
        self._speaking.set()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        identity = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                token = self.headers["X-Subject-Token"]
                if token is not None:
                    identity.questions.append(token)
                identity._speaking.wait(60)
                if token is None:
                    self._answer(200, {"version": identity._version()})
                elif token in identity.tokens:
                    self._answer(200, {"token": identity._token(identity.tokens[token])})
                else:
                    self._answer(404, {"error": {"code": 404, "message": "no token"}})

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                identity._speaking.wait(60)
                self._answer(201, {"token": identity._token("kongming")}, OURS)

            def _answer(self, status: int, body: Any, token: str | None = None) -> None:
                data = json.dumps(body).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    if token is not None:
                        self.send_header("X-Subject-Token", token)
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    # The client has given up.
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler

    def _version(self) -> dict[str, Any]:
        links = [{"rel": "self", "href": f"{self.url}/"}]
        return {"id": "v3.14", "status": "stable", "links": links, "media-types": []}

    def _token(self, user: str) -> dict[str, Any]:
        now = datetime.now(UTC) + self.ahead
        endpoint = {"interface": "internal", "region": "one", "region_id": "one", "id": "e"}
        catalog = {"type": "identity", "id": "i", "endpoints": [{**endpoint, "url": self.url}]}
        domain = {"id": "default", "name": "Default"}
        return {
            "methods": ["password"],
            "user": {"id": f"id-of-{user}", "name": user, "domain": domain},
            "project": {"id": "a-project", "name": "project", "domain": domain},
            "roles": [{"id": "r", "name": "admin"}],
            "catalog": [catalog],
            "issued_at": _written(now),
            "expires_at": _written(now + self.lifetime),
            "audit_ids": ["a"],
        }

    def _end(self) -> None:
        self.speak()
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


def _written(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000000Z")
