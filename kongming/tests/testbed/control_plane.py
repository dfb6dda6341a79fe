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
"""What trigger 3 has on controllers: a database, conductors and the API, each as processes."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import http.client
import itertools
import json
import os
from pathlib import Path
import subprocess
from typing import Any, NamedTuple
import urllib.request

from kongming.tests.testbed.daemon import CONDUCTOR, ServiceProcess
from kongming.tests.testbed.process import Service, free_port, patience, wait_until
from kongming.tests.testbed.program import BIN, Program, installed

TIMEOUT = 60
_PRELOADED = "kongming.tests.testbed.preloaded_api"

# Whatever proxy the machine uses, these services are on this very machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Answer(NamedTuple):
    """An answer of the API: its status, its JSON (None if it has none), its headers."""

    status: int
    body: Any
    headers: http.client.HTTPMessage


class Api(Service):
    """The REST API under gunicorn, several workers of it.

    :param conf: the file kongming.conf.
    :param preloaded: whether the modules are loaded once, and not by each worker.
    """

    def __init__(
        self, root: Path, conf: Path, *, workers: int = 2, preloaded: bool = False
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = Program(
            [
                str(BIN / "gunicorn"),
                *("--bind", f"127.0.0.1:{self.port}", "--workers", str(workers)),
                *(("--config", f"python:{_PRELOADED}") if preloaded else ()),
                # Its control socket would be the user's.
                *("--threads", "4", "--no-control-socket", "kongming.wsgi.api:application"),
            ],
            root / "api.log",
            {**os.environ, "OS_KONGMING_CONFIG_FILES": str(conf)},
        )

    def start(self) -> None:
        """Start it and return when it answers."""
        self.process.start()
        self.process.wait_ready(self.answers, TIMEOUT, "the API answers")

    def answers(self) -> bool:
        """Return whether it responds, whatever the response."""
        try:
            return bool(self.request("GET", "/").status)
        except OSError:
            return False

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send a request, with a body as JSON; give the answer, also if it is an error."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            response = _opener.open(request, timeout=TIMEOUT * patience())
        except urllib.error.HTTPError as error:
            response = error
        with response:
            text = response.read()
            is_json = "json" in response.headers.get("Content-Type", "")
            body = json.loads(text) if text and is_json else None
            return Answer(response.status, body, response.headers)

    def get(self, path: str) -> Any:
        """Give the JSON of what is there; fails if it is not."""
        answer = self.request("GET", path)
        assert answer.status == 200, answer
        return answer.body

    def _end(self) -> None:
        self.process.terminate()


class ControlPlane(Service):
    """A database, any number of conductors, and the API; all is in ``root``.

    :param connection: the URL of the database; SQLite in ``root`` if empty.
    :param options: what kongming.conf holds besides, as the text of it.
    """

    def __init__(
        self,
        root: Path,
        *,
        transport_url: str,
        connection: str = "",
        conductors: int = 2,
        options: str = "",
    ) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)
        connection = connection or f"sqlite:///{root / 'kongming.sqlite'}"
        self._configuration = (
            f"[DEFAULT]\ntransport_url = {transport_url}\nstate_path = {root}\n"
            f"[database]\nconnection = {connection}\n[api]\nauth_strategy = noauth\n{options}"
        )
        self.conf = root / "kongming.conf"
        self.conf.write_text(self._configuration)
        self._number = itertools.count(1)
        self.conductors = [self._conductor() for _ in range(conductors)]
        self.api = Api(root, self.conf)

    def _conductor(self) -> ServiceProcess:
        name = f"controller-{next(self._number)}"
        return ServiceProcess(
            self._root / name, CONDUCTOR, f"[DEFAULT]\nhost = {name}\n{self._configuration}"
        )

    def start(self) -> None:
        """Make the database and start all; return when all are ready."""
        self.manage("db", "sync")
        self.start_missing()

    def start_missing(self) -> None:
        """Start what does not run; return when all are ready."""
        missing = [each for each in self.conductors if not each.process.running]
        for conductor in missing:
            conductor.start_soon()
        if not self.api.process.running:
            self.api.start()
        for conductor in missing:
            conductor.wait_ready()

    def stop(self) -> None:
        """End all in their own time; `start_missing` starts them again."""
        self.api.process.terminate()
        for conductor in self.conductors:
            conductor.stop()

    def manage(self, *arguments: str) -> str:
        """Run kongming-manage; return its output."""
        command = [*installed("kongming-manage"), "--config-file", str(self.conf), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def wait_status(self, instance_uuid: str, status: str, timeout: float = 30) -> Any:
        """Wait until an allocation has a status; return it as the API shows it."""
        path = f"/v1/allocations/{instance_uuid}"

        def reached() -> Any:
            response = self.api.request("GET", path)
            is_reached = response.status == 200 and response.body["status"] == status
            return response.body if is_reached else None

        with self._explained(lambda: self.api.request("GET", path).body):
            return wait_until(reached, timeout, f"status {status} of {instance_uuid}")

    def wait_gone(self, instance_uuid: str, timeout: float = 30) -> None:
        """Wait until nothing is requested any more, and the host has reported it."""
        path = f"/v1/allocations/{instance_uuid}"
        with self._explained(lambda: self.api.request("GET", path).body):
            wait_until(
                lambda: self.api.request("GET", path).status == 404, timeout, f"{path} gone"
            )

    @contextlib.contextmanager
    def _explained(self, describe: Any) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            error.add_note(json.dumps(describe(), indent=1))
            for conductor in self.conductors:
                error.add_note(conductor.log()[-3000:])
            raise

    def _end(self) -> None:
        self.api.__exit__(None, None, None)
        for conductor in self.conductors:
            conductor.__exit__(None, None, None)
