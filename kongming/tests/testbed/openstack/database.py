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

"""A private MariaDB server, with an empty database for each of OpenStack's services."""

from __future__ import annotations

from pathlib import Path
import socket
import subprocess

from kongming.tests.testbed.openstack.site import PASSWORD, Site
from kongming.tests.testbed.process import Process, Service, find_program

PACKAGE = "mariadb-server-core"
USER = "openstack"
DATABASES = (
    "keystone",
    "placement",
    "glance",
    "neutron",
    "nova_api",
    "nova_cell0",
    "nova_cell1",
)
CHARACTERS = "utf8mb3"
START_TIMEOUT = 60
PROTOCOL_VERSION = 10


def database_url(site: Site, name: str) -> str:
    """The address of a database in SQLAlchemy's form."""
    address = f"{USER}:{PASSWORD}@127.0.0.1:{site.database_port}"
    return f"mysql+pymysql://{address}/{name}?charset={CHARACTERS}"


class Database(Service):
    """The server; a context manager. It serves TCP only, on the site's port."""

    def __init__(self, site: Site) -> None:
        self._port = site.database_port
        self._root = site.root / "database"
        self._data = self._root / "data"
        self._statements = self._root / "init.sql"
        self._server = Process(
            [
                find_program("mariadbd", PACKAGE),
                "--no-defaults",
                f"--user={_user()}",
                f"--datadir={self._data}",
                f"--socket={self._root / 'socket'}",
                f"--pid-file={self._root / 'pid'}",
                "--bind-address=127.0.0.1",
                f"--port={self._port}",
                "--skip-name-resolve",
                "--max-connections=500",
                # Nothing of it needs to outlive a crash of the machine.
                "--innodb-flush-log-at-trx-commit=0",
                # Carried out before the first connection is taken.
                f"--init-file={self._statements}",
            ],
            site.log("mariadb"),
        )

    def start(self) -> None:
        """Return when it takes connections and has the databases."""
        if not self._data.exists():
            self._make_system_tables()
            self._statements.write_text("".join(_statements()))
        self._server.start()
        self._server.wait_ready(self._answers, START_TIMEOUT, "MariaDB takes connections")

    def _make_system_tables(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        # The program that makes them runs it.
        find_program("my_print_defaults", "mariadb-client-core")
        done = subprocess.run(
            [
                find_program("mariadb-install-db", PACKAGE),
                "--no-defaults",
                f"--user={_user()}",
                f"--datadir={self._data}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"mariadb-install-db failed:\n{done.stdout}")

    def _answers(self) -> bool:
        """Whether a connection is greeted: the socket alone is open long before."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as connection:
                return connection.recv(5)[4:] == bytes([PROTOCOL_VERSION])
        except OSError:
            return False

    def _end(self) -> None:
        self._server.kill()


def _statements() -> list[str]:
    # Each statement of an init file is a line.
    made = [
        f"CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET {CHARACTERS};\n" for name in DATABASES
    ]
    user = f"'{USER}'@'127.0.0.1'"
    return [*made, f"GRANT ALL ON *.* TO {user} IDENTIFIED BY '{PASSWORD}';\n"]


def _user() -> str:
    return Path("/proc/self").owner()
