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
"""Commands of ``openstack kongming``, run in this process against any address of the API."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
import io
import json
from types import SimpleNamespace
from typing import Any, NamedTuple

from keystoneauth1 import noauth, session
from openstack.exceptions import SDKException
from osc_lib import exceptions

from kongming import exception
from kongming.client.rest import Client
from kongming.osc import plugin

COMMANDS = entry_points(group="openstack.kongming.v1")


class Ended(NamedTuple):
    """How a command ended: its exit status, standard output and standard error."""

    status: int
    output: str
    stderr: str

    @property
    def parsed(self) -> Any:
        """Its output with ``-f json``."""
        return json.loads(self.output)

    @property
    def lines(self) -> list[str]:
        """The lines of its standard error."""
        return self.stderr.splitlines()


def client_at(url: str, **options: Any) -> Client:
    """The client, as openstackclient has it made."""
    return plugin.make_client(
        SimpleNamespace(
            session=session.Session(auth=noauth.NoAuth(endpoint=url)),
            interface="public",
            region_name=None,
            get_configuration=lambda: options,
        )
    )


def run(
    client: Client, name: str, *arguments: str, stdout: Any = None, connection: Any = None
) -> Ended:
    """Run a command as cliff does: what it raises is one line, and status 1.

    :param connection: that of openstacksdk.
    """
    stdout = stdout or io.StringIO()
    manager = SimpleNamespace(kongming=client, sdk_connection=connection)
    app = SimpleNamespace(
        stdout=stdout,
        stderr=io.StringIO(),
        client_manager=manager,
        prepare_to_run_command=lambda _: None,
    )
    command = COMMANDS[f"kongming_{name.replace(' ', '_')}"].load()(app, None)
    status, error = 1, ""
    try:
        parsed = command.get_parser(f"openstack kongming {name}").parse_args(arguments)
        status = command.run(parsed)
    except (
        exceptions.CommandError,
        exceptions.ClientException,
        SDKException,
        exception.KongmingError,
    ) as raised:
        error = f"{raised}\n"
    except SystemExit as ended:
        status = int(str(ended.code))
    except KeyboardInterrupt:
        status = 130
    return Ended(status, stdout.getvalue(), app.stderr.getvalue() + error)


class Meanwhile:
    """A clock that stands still but for sleeping, and what happens in between.

    :param steps: each is done in one of the pauses.
    :ivar slept: how long each pause was.
    """

    def __init__(self, *steps: Callable[[], Any]) -> None:
        self._steps = list(steps)
        self.slept: list[float] = []

    def clock(self) -> float:
        """The time, in seconds."""
        return sum(self.slept)

    def sleep(self, seconds: float) -> None:
        """Let it pass, with what happens in it."""
        self.slept.append(seconds)
        if self._steps:
            self._steps.pop(0)()
