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

"""A private Keystone: real tokens for real users, in an SQLite database of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
import functools
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

from keystoneauth1 import exceptions, session
from keystoneauth1.identity import v3

from kongming.tests.testbed.process import Process, Service, free_port

BIN = Path(sys.executable).parent
ADMIN = "admin"
PASSWORD = "open-sesame"
DOMAIN = "default"
TIMEOUT = 60
EXPIRATION_S = 3600


@dataclass(frozen=True)
class _Server:
    """One process of Keystone's; all share a database and their keys."""

    folder: Path
    port: int
    process: Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v3"


class Keystone(Service):
    """Keystone with its administrator.

    Some tokens are to have ended: a second process gives those, which last
    for a second.

    :param root: holds all that it writes
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._keys = root / "keys"
        self._server = self._make("keystone", EXPIRATION_S)
        self._brief = self._make("keystone-brief", 1)

    @property
    def url(self) -> str:
        """The address that tokens are got from, and checked at."""
        return self._server.url

    def start(self) -> None:
        """Return when it gives tokens."""
        self._keys.mkdir()
        owner = ("--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid()))
        with ThreadPoolExecutor() as pool:
            keys = pool.submit(self._manage, "fernet_setup", *owner)
            self._manage("db_sync")
            keys.result()
        endpoint = ("--bootstrap-public-url", self.url, "--bootstrap-internal-url", self.url)
        self._manage("bootstrap", "--bootstrap-password", PASSWORD, *endpoint)
        for server in (self._server, self._brief):
            server.process.start()
        for server in (self._server, self._brief):
            answers = functools.partial(self._answers, server)
            server.process.wait_ready(answers, TIMEOUT, "Keystone answers")

    def project(self, name: str) -> str:
        """Make a project; its id."""
        return self._post("projects", "project", name=name, domain_id=DOMAIN)

    def user(self, name: str, project_id: str, role: str) -> None:
        """Make a user that has a role in a project."""
        user = self._post("users", "user", name=name, password=PASSWORD, domain_id=DOMAIN)
        url = f"{self.url}/roles?name={role}"
        role_id = self._admin.get(url).json()["roles"][0]["id"]
        self._admin.put(f"{self.url}/projects/{project_id}/users/{user}/roles/{role_id}")

    def endpoint(self, service_type: str, url: str) -> None:
        """Enter a service in the catalogue."""
        service = self._post("services", "service", type=service_type, name=service_type)
        for interface in ("public", "internal"):
            self._post("endpoints", "endpoint", service_id=service, interface=interface, url=url)

    def environment(self, user: str, project_id: str) -> dict[str, str]:
        """Give what the command line takes from the environment to be a user."""
        return {
            "OS_AUTH_URL": self.url,
            "OS_IDENTITY_API_VERSION": "3",
            "OS_USERNAME": user,
            "OS_PASSWORD": PASSWORD,
            "OS_USER_DOMAIN_ID": DOMAIN,
            "OS_PROJECT_ID": project_id,
        }

    def token(self, user: str, project_id: str | None) -> str:
        """Give a token of a user's, for a project or for none."""
        return self._token(self._server, user, project_id)

    def ended_token(self, user: str, project_id: str) -> str:
        """Give a token that has ended by now."""
        token = self._token(self._brief, user, project_id)
        self._server.process.wait_ready(
            lambda: not self._is_valid(token), TIMEOUT, "the token has ended"
        )
        return token

    def revoke(self, token: str) -> None:
        """Have a token be none any more."""
        self._admin.delete(f"{self.url}/auth/tokens", headers={"X-Subject-Token": token})

    def _make(self, name: str, expiration: int) -> _Server:
        folder, port = self._root / name, free_port()
        folder.mkdir(parents=True)
        (folder / "keystone.conf").write_text(
            f"[database]\nconnection = sqlite:///{self._root}/keystone.sqlite\n"
            f"[token]\nexpiration = {expiration}\n"
            f"[fernet_tokens]\nkey_repository = {self._keys}\n"
            f"[fernet_receipts]\nkey_repository = {self._keys}\n"
            "[cache]\nenabled = false\n"
            # Passwords that anybody can read need no strong hash, which takes its time.
            "[identity]\npassword_hash_rounds = 4\n"
        )
        # Keystone would take gunicorn's arguments for its own.
        settings = folder / "gunicorn.conf.py"
        settings.write_text(
            f"wsgi_app = 'keystone.wsgi.api:application'\nbind = '127.0.0.1:{port}'\n"
            "threads = 4\ncontrol_socket_disable = True\n"
        )
        environment = {
            **os.environ,
            "GUNICORN_CMD_ARGS": f"--config {settings}",
            "OS_KEYSTONE_CONFIG_DIR": str(folder),
        }
        log = self._root / f"{name}.log"
        return _Server(folder, port, Process([str(BIN / "gunicorn")], log, environment))

    def _manage(self, *arguments: str) -> None:
        program = str(BIN / "keystone-manage")
        file = str(self._server.folder / "keystone.conf")
        done = subprocess.run(
            [program, "--config-file", file, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"keystone-manage {arguments[0]} failed:\n{done.stdout[-2000:]}")

    def _answers(self, server: _Server) -> bool:
        try:
            self._token(server, ADMIN, None)
        except exceptions.ClientException:
            return False
        return True

    def _is_valid(self, token: str) -> bool:
        url = f"{self.url}/auth/tokens"
        headers = {"X-Subject-Token": token}
        answer = self._admin.get(url, headers=headers, raise_exc=False)
        return bool(answer.status_code == 200)

    def _token(self, server: _Server, user: str, project_id: str | None) -> str:
        auth = v3.Password(
            server.url,
            username=user,
            password=PASSWORD,
            user_domain_id=DOMAIN,
            project_id=project_id,
            unscoped=project_id is None,
        )
        return str(session.Session(auth, timeout=TIMEOUT).get_token())

    @functools.cached_property
    def _admin(self) -> session.Session:
        auth = v3.Password(
            self.url,
            username=ADMIN,
            password=PASSWORD,
            user_domain_id=DOMAIN,
            project_name=ADMIN,
            project_domain_id=DOMAIN,
        )
        return session.Session(auth, timeout=TIMEOUT)

    def _post(self, collection: str, kind: str, **fields: Any) -> str:
        made = self._admin.post(f"{self.url}/{collection}", json={kind: fields})
        return str(made.json()[kind]["id"])

    def _end(self) -> None:
        for server in (self._server, self._brief):
            server.process.kill()
