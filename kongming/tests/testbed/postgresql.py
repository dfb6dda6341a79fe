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

"""A private PostgreSQL server with a data directory and a port of its own.

It refuses to run as root: then it runs as the user that its Debian package made.
"""

from __future__ import annotations

from contextlib import closing, suppress
import os
from pathlib import Path
import shutil
import signal
import subprocess
import tempfile
from urllib.parse import quote

import psycopg2

from kongming.tests.testbed.mariadb import PASSWORD, USER
from kongming.tests.testbed.process import Process, Service, free_port, wait_until

PACKAGE = "postgresql"
SYSTEM_USER = "postgres"
START_TIMEOUT = 60
STOP_TIMEOUT = 30


class PostgreSQL(Service):
    """A server that serves TCP only; a context manager.

    :param root: where it logs to; its data is where its user may go
    """

    def __init__(self, root: Path) -> None:
        self.port = free_port()
        # A test's own directory is root's alone.
        self._home = Path(tempfile.mkdtemp(prefix="kongming-postgresql-"))
        self._data = self._home / "data"
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 200,
            # It outlives its own crash, but need not outlive the machine's.
            "fsync": "off",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        root.mkdir(parents=True, exist_ok=True)
        self._server = Process(
            [*_as_its_user(), _program("postgres"), "-D", str(self._data), *options],
            root / "postgresql.log",
        )

    def start(self) -> None:
        """Return when it takes connections."""
        if not self._data.exists():
            self._make_cluster()
        self._server.start()
        self._server.wait_ready(self._answers, START_TIMEOUT, "PostgreSQL takes connections")

    def kill(self) -> None:
        """End it, and the processes that serve its connections, with SIGKILL."""
        pid = self._server.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self._server.kill()
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        # Nobody may use its memory any more when it starts again.
        wait_until(
            lambda: not any(Path(f"/proc/{child}").exists() for child in children),
            STOP_TIMEOUT,
            "PostgreSQL's processes are gone",
        )

    def create(self, name: str) -> str:
        """Make an empty database; its address in SQLAlchemy's form."""
        with closing(self._connect()) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {name}")
        address = f"{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}"
        return f"postgresql+psycopg2://{address}/{name}"

    def _make_cluster(self) -> None:
        password = self._home / "password"
        password.write_text(PASSWORD)
        if os.geteuid() == 0:
            for path in (self._home, password):
                shutil.chown(path, SYSTEM_USER)
        done = subprocess.run(
            [
                *_as_its_user(),
                *(_program("initdb"), "-D", str(self._data), "--no-sync"),
                *("--username", USER, "--pwfile", str(password), "--auth=scram-sha-256"),
                # As Debian's own: strings are not sorted byte by byte.
                *("--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu"),
                "--icu-locale=en-US",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd="/",
        )
        if done.returncode:
            raise RuntimeError(f"initdb failed:\n{done.stdout}")

    def _answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg2.OperationalError:
            return False
        return True

    def _connect(self) -> psycopg2.extensions.connection:
        return psycopg2.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname="postgres"
        )

    def _end(self) -> None:
        if self._server.running:
            # The fast way: it does not wait for its clients.
            os.kill(self._server.pid, signal.SIGINT)
            with suppress(TimeoutError):
                wait_until(lambda: not self._server.running, STOP_TIMEOUT, "PostgreSQL ends")
        self._server.kill()
        shutil.rmtree(self._home, ignore_errors=True)


def _program(name: str) -> str:
    # Not in PATH: several versions may be there.
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if not found:
        raise FileNotFoundError(f"{name} is not installed: apt-get install {PACKAGE}")
    return str(found[-1])


def _as_its_user() -> list[str]:
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={SYSTEM_USER}", f"--regid={SYSTEM_USER}", "--clear-groups", "--"]
