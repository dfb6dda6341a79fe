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

"""The REST API in this process: its application, and what stands in for the conductors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import functools
import json
from pathlib import Path
import tempfile
from typing import Any, NamedTuple

import webob

from kongming.allocation.allocation import Allocation
from kongming.api.application import make_application
from kongming.cmd import launch
from kongming.db.allocations import Allocations
from kongming.db.database import Database
from kongming.db.hosts import Hosts
from kongming.tests import databases


class Answer(NamedTuple):
    """An answer: its status, its JSON (None if it is none), its headers, its bytes."""

    status: int
    body: Any
    headers: Any
    data: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The only error that it reports."""
        (error,) = self.body["errors"]
        found: dict[str, Any] = error
        return found


@dataclass
class Conductor:
    """Keeps what the API sends to conductors, with prepared responses.

    :ivar hints: the instances of each hint that another allocation is desired.
    :ivar planned: the requested dry runs.
    :ivar answer: of a dry run; an error is raised.
    """

    hints: list[list[str]] = field(default_factory=list)
    planned: list[tuple[str, Allocation | None]] = field(default_factory=list)
    answer: dict[str, Any] | Exception = field(default_factory=dict)

    def changed(self, instance_uuids: Sequence[str]) -> None:
        self.hints.append(list(instance_uuids))

    def plan(self, instance_uuid: str, allocation: Allocation | None) -> dict[str, Any]:
        self.planned.append((instance_uuid, allocation))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def plan_all(self, requested: Mapping[str, Allocation | None]) -> dict[str, dict[str, Any]]:
        """Answer for each instance, with its own answer if there is one."""
        answers = {uuid: self.plan(uuid, each) for uuid, each in requested.items()}
        return {uuid: answer.get(uuid, answer) for uuid, answer in answers.items()}


class Api:
    """The application, with an SQLite database in ``root``.

    :param options: more of kongming.conf.
    :param tables: whether the database has them.
    :param real_conductor: whether it speaks over the bus of ``transport_url``.
    :ivar conductor: what it received.
    :ivar address: from where requests come.
    """

    def __init__(
        self,
        root: Path,
        options: str = "",
        *,
        tables: bool = True,
        connection: str = "",
        auth_strategy: str = "noauth",
        real_conductor: bool = False,
    ) -> None:
        self.conf_file = root / "kongming.conf"
        self.conf_file.write_text(
            f"[DEFAULT]\nstate_path = {root}\n"
            f"[database]\nconnection = {connection or f'sqlite:///{root}/kongming.sqlite'}\n"
            # What a power failure would leave of it is of no interest here.
            "sqlite_synchronous = false\n"
            f"[api]\nauth_strategy = {auth_strategy}\n{options}"
        )
        self.conf = launch.configure(["--config-file", str(self.conf_file)])
        self.database = Database(self.conf)
        if tables:
            (root / "kongming.sqlite").write_bytes(_tables())
        self.allocations, self.hosts = Allocations(self.database), Hosts(self.database)
        self.conductor = Conductor()
        self.address = "127.0.0.1"
        stands_in = None if real_conductor else self.conductor
        self.application = make_application(self.conf, self.database, stands_in)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
        environ: dict[str, Any] | None = None,
    ) -> Answer:
        """Send a request, with a body as JSON, or with ``data``; what is in ``environ`` wins."""
        if body is not None:
            data = json.dumps(body).encode()
        given = {} if data is None else {"Content-Type": "application/json"}
        request = webob.Request.blank(
            path,
            {"REMOTE_ADDR": self.address},
            headers={**given, **(headers or {})},
            method=method,
        )
        if data is not None:
            request.body = data
        request.environ |= environ or {}
        response = request.get_response(self.application)
        is_json = response.content_type == "application/json" and response.body
        found = json.loads(response.body) if is_json else None
        return Answer(response.status_int, found, response.headers, response.body)

    def get(self, path: str) -> Any:
        """The JSON of what is there; fails if it is not."""
        answer = self.request("GET", path)
        assert answer.status == 200, answer
        return answer.body

    def put(self, path: str, body: Any, *statuses: int) -> Any:
        """The JSON of what is there then; fails if it can't be put there."""
        answer = self.request("PUT", path, body)
        assert answer.status in (statuses or (200, 201)), answer
        return answer.body


@functools.cache
def _tables() -> bytes:
    """An SQLite database that has the tables and nothing in them: to make it takes its time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kongming.sqlite"
        databases.database(f"sqlite:///{path}").close()
        return path.read_bytes()
