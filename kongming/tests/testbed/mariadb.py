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

"""A private MariaDB server with a data directory and a port of its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
import socket
import subprocess
from urllib.parse import quote

import pymysql

from kongming.tests.testbed.process import Process, Service, find_program, free_port

PACKAGE = "mariadb-server-core"
USER = "kongming"
# Of signs that mean something in a URL.
PASSWORD = "se:cr@t/100%"
START_TIMEOUT = 60
PROTOCOL_VERSION = 10


class MariaDB(Service):
    """A server that keeps everything in `root` and serves TCP only; a context manager.

    :param port: a free one if it is None
    :param statements: carried out at each start, before the first connection is taken
    :param options: more options of the server
    :ivar data: where its tables are
    """

    def __init__(
        self,
        root: Path,
        *,
        port: int | None = None,
        log: Path | None = None,
        statements: Iterable[str] | None = None,
        options: Iterable[str] = (),
    ) -> None:
        self.port = free_port() if port is None else port
        self._root = root
        self.data = root / "data"
        self._init = root / "init.sql"
        self._statements = [grant(USER, PASSWORD)] if statements is None else list(statements)
        self._server = Process(
            [
                find_program("mariadbd", PACKAGE),
                "--no-defaults",
                f"--user={_user()}",
                f"--datadir={self.data}",
                f"--socket={root / 'socket'}",
                f"--pid-file={root / 'pid'}",
                "--bind-address=127.0.0.1",
                f"--port={self.port}",
                "--skip-name-resolve",
                # From 11.4 on it offers TLS by itself: the tests look into what is sent.
                "--skip-ssl",
                "--max-connections=500",
                # It outlives its own crash, but need not outlive the machine's.
                "--innodb-flush-log-at-trx-commit=2",
                "--debug-no-sync",
                f"--init-file={self._init}",
                *options,
            ],
            root / "mariadb.log" if log is None else log,
        )

    def start(self) -> None:
        """Return when it takes connections and the statements are carried out."""
        self.prepare()
        self._server.start()
        self._server.wait_ready(self._answers, START_TIMEOUT, "MariaDB takes connections")

    def prepare(self) -> None:
        """Make its files, unless they are there."""
        if not self.data.exists():
            self._make_system_tables()
            # Each statement of an init file is a line.
            self._init.write_text("".join(f"{each};\n" for each in self._statements))

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._server.kill()

    def create(self, name: str) -> str:
        """Make an empty database; its address in SQLAlchemy's form."""
        with (
            pymysql.connect(
                host="127.0.0.1", port=self.port, user=USER, password=PASSWORD
            ) as connection,
            connection.cursor() as cursor,
        ):
            # Not the character set that the tables have, so that they have to say it.
            cursor.execute(f"CREATE DATABASE {name} CHARACTER SET latin1")
        address = f"{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}"
        return f"mysql+pymysql://{address}/{name}"

    def _make_system_tables(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        # The program that makes them runs it.
        find_program("my_print_defaults", "mariadb-client-core")
        done = subprocess.run(
            [
                find_program("mariadb-install-db", PACKAGE),
                "--no-defaults",
                f"--user={_user()}",
                f"--datadir={self.data}",
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
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                return connection.recv(5)[4:] == bytes([PROTOCOL_VERSION])
        except OSError:
            return False

    def _end(self) -> None:
        self._server.kill()


def grant(user: str, password: str) -> str:
    """The statement that makes a user who may do everything."""
    return f"GRANT ALL ON *.* TO '{user}'@'127.0.0.1' IDENTIFIED BY '{password}'"


def _user() -> str:
    return Path("/proc/self").owner()
