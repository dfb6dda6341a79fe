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

"""Connecting to a database: the URL, the driver's parameters, and the session's settings.

Whatever the server's defaults are, each session has READ COMMITTED, all of Unicode, and a limit
for every wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from sqlalchemy import URL, exc, make_url

from kongming import exception

MYSQL = ("mysql", "mariadb")
POSTGRESQL = "postgresql"
SQLITE = "sqlite"

#: Seconds to connect, with greeting and login.
CONNECT_S = 10


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to wait for a database, in seconds.

    :ivar answer_s: until a database that sends nothing counts as unresponsive.
    :ivar statement_s: for a statement of a database that responds.
    :ivar lock_s: for a row or a table that is locked.
    """

    answer_s: float
    statement_s: int
    lock_s: int


#: For services. A busy server may well send nothing for a second.
SERVICE = Limits(3.0, 30, 2)
#: For migrations, however long they take.
MAINTENANCE = Limits(10.0, 24 * 3600, 24 * 3600)

# The locks of a client that crashed or hangs are released after this time.
_IDLE_S = 30
_SQLITE_BUSY_MS = 30_000
_UTF8 = "UTF8"
_NO_SUCH_VARIABLE = 1193

# Detects a lost peer within some ten seconds.
_KEEPALIVE = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


def usable_url(written: str | None) -> URL:
    """Parse the URL of a database.

    :raises ConfigInvalid: if it can't be used.
    """
    try:
        url = make_url(written or "")
        url.get_dialect().import_dbapi()
    except exc.NoSuchModuleError:
        raise exception.ConfigInvalid(
            f"[database] connection: unknown driver {url.drivername}; use sqlite, "
            "mysql+pymysql or postgresql+psycopg2"
        ) from None
    except ImportError as error:
        raise exception.ConfigInvalid(
            f"[database] connection: the driver of {url.drivername} is not installed ({error}); "
            "install kongming[mysql] or kongming[postgresql]"
        ) from error
    except (exc.ArgumentError, ValueError):
        # The cause is left out: it would quote the password.
        raise exception.ConfigInvalid(
            "[database] connection is not a URL such as mysql+pymysql://user:password@host/kongming"
            "; write @ and / in the password as %40 and %2F"
        ) from None
    return url


def complete(url: URL, given: str, statement_s: int) -> URL:
    """Return a URL with all parameters of the driver.

    :param given: the operator's additional parameters: ``key=value&…``.
    :param statement_s: the limit of a statement in seconds.
    """
    url = url.update_query_dict(dict(parse_qsl(given)))
    backend = url.get_backend_name()
    needed: dict[str, object] = {}
    limits: dict[str, object] = {}
    if backend in MYSQL:
        # The server's utf8 lacks some characters.
        needed = {"charset": "utf8mb4"}
        limits = {
            "connect_timeout": CONNECT_S,
            "read_timeout": statement_s,
            "write_timeout": statement_s,
        }
    elif backend == POSTGRESQL:
        needed = {"client_encoding": "utf8"}
        limits = {"connect_timeout": CONNECT_S, **_KEEPALIVE}
    missing = {key: value for key, value in limits.items() if key not in url.query}
    return url.update_query_dict({key: str(value) for key, value in (missing | needed).items()})


def prepare(connection: Any, backend: str, lock_s: int) -> None:
    """Configure a new session.

    :param lock_s: for how many seconds it may wait for a lock.
    """
    if backend == POSTGRESQL:
        _prepare_postgresql(connection, lock_s)
    else:
        _prepare_mysql(connection, lock_s)


def accepts_writes(connection: Any, backend: str) -> bool:
    """Return whether a connection leads to a server that accepts writes, and not to a standby."""
    if backend == POSTGRESQL:
        read_only = "SELECT current_setting('transaction_read_only')"
    else:
        read_only = "SELECT @@global.read_only"
    with connection.cursor() as cursor:
        cursor.execute(read_only)
        (found,) = cursor.fetchone()
    # Otherwise the next user would find the connection in a transaction.
    connection.rollback()
    return str(found).lower() in ("0", "off")


def prepare_sqlite(connection: Any, _: object) -> None:
    """Configure a new connection to a file, like :func:`prepare`."""
    # Otherwise one text that is not UTF-8 would make all rows unreadable.
    connection.text_factory = lambda raw: raw.decode("utf-8", "backslashreplace")
    connection.execute(f"PRAGMA busy_timeout = {_SQLITE_BUSY_MS}")


def _prepare_mysql(connection: Any, lock_s: int) -> None:
    """Read what others have committed, and lock rows but not the gaps between them."""
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        for name in ("innodb_lock_wait_timeout", "lock_wait_timeout"):
            cursor.execute(f"SET SESSION {name} = {lock_s}")
        try:
            # The variant for writing transactions does not cover those that only hold locks.
            cursor.execute(f"SET SESSION idle_transaction_timeout = {_IDLE_S}")
        except Exception as error:
            # Only MariaDB has it.
            if error.args[:1] != (_NO_SUCH_VARIABLE,):
                raise


def _prepare_postgresql(connection: Any, lock_s: int) -> None:
    encoding = connection.get_parameter_status("server_encoding")
    if encoding != _UTF8:
        raise exception.DatabaseUnavailable(
            f"the database of [database] connection has the encoding {encoding}, which lacks "
            f"characters: create it with the encoding {_UTF8}"
        )
    # ReceivedReport with each transaction: also where others use the same session in between.
    connection.set_session(isolation_level="READ COMMITTED")
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = '{lock_s}s'")
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE_S}s'")
    connection.commit()
