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

"""Kongming's API over real HTTP, which answers some requests by a script.

What stands between a client and the API does so: proxies, load balancers, networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
import enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import sys
import threading
from typing import Any

from kongming.tests.api import Api
from kongming.tests.testbed.process import Service

_HTML = b"<html><body><h1>Please wait</h1></body></html>"


class How(enum.Enum):
    """How an answer fails to come."""

    #: Nothing comes until the script ends.
    SILENT = enum.auto()
    #: The connection is closed amid the body.
    CUT = enum.auto()
    #: The connection is closed before the answer begins.
    CLOSED = enum.auto()
    #: What comes is not HTTP.
    NOISE = enum.auto()


class _Server(ThreadingHTTPServer):
    """A server whose clients may disconnect."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@dataclass(frozen=True)
class Odd:
    """An answer that is not the API's.

    :ivar status: of HTTP, with a page for people.
    :ivar after: whether the API has got the request all the same.
    """

    status: int = 200
    how: How | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = _HTML
    after: bool = False

    def __str__(self) -> str:
        name = self.how.name.lower() if self.how else str(self.status)
        return f"{name}-carried-out" if self.after else name


#: What is to be answered to a request, by method, path and number from 1; None: the API's.
Script = Callable[[str, str, int], Odd | None]


class ScriptedApi(Service):
    """Serves an :class:`Api` at a port of its own; a context manager.

    :ivar script: None to have all requests answered by the API.
    :ivar requests: those that came since the script began, method and path.
    :ivar silent: set when a request is left without an answer.
    """

    def __init__(self, api: Api) -> None:
        self.api = api
        self.script: Script | None = None
        self.requests: list[tuple[str, str]] = []
        self.silent = threading.Event()
        self._over = threading.Event()
        self._lock = threading.Lock()
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def answer(self) -> None:
                scripted._answer(self)

            do_GET = do_PUT = do_DELETE = answer  # noqa: N815

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02])
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        """Return when it takes connections."""
        self._thread.start()

    @contextmanager
    def scripted(self, script: Script) -> Iterator[None]:
        """Answer by a script as long as the block lasts; the requests are numbered anew."""
        self._over.clear()
        self.silent.clear()
        self.requests = []
        self.script = script
        try:
            yield
        finally:
            self.script = None
            self._over.set()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        with self._lock:
            self.requests.append((handler.command, handler.path))
            number, script = len(self.requests), self.script
        odd = script(handler.command, handler.path, number) if script else None
        if odd is None or odd.after:
            answer = self.api.request(
                handler.command, handler.path, data=body or None, headers=dict(handler.headers)
            )
        if odd is None:
            self._write(handler, answer.status, answer.data, dict(answer.headers))
        elif odd.how is None:
            self._write(handler, odd.status, odd.body, {"Content-Type": "text/html"} | odd.headers)
        else:
            self._fail(handler, odd.how)

    def _write(
        self, handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]
    ) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "server", "date"):
                handler.send_header(name, value)
        if status != 204:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if status != 204:
            handler.wfile.write(body)

    def _fail(self, handler: BaseHTTPRequestHandler, how: How) -> None:
        handler.close_connection = True
        if how is How.SILENT:
            self.silent.set()
            self._over.wait(60)
        elif how is How.NOISE:
            handler.wfile.write(b"\x15\x03\x01\x00\x02\x02\x50 is TLS\r\n")
        elif how is How.CUT:
            handler.send_response(200)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.wfile.write(b'{"instance_uuid": "5f0c3b52')

    def _end(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(30)
        self._server.server_close()
