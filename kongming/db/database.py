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

"""The way to the database: transactions that are tried again, and errors that say what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
import random
import re
import threading
import time
from typing import Any, TypeVar

from oslo_config import cfg
from oslo_db import exception as db_exception
from oslo_db.sqlalchemy import enginefacade
from sqlalchemy import URL, Connection, Engine, event, exc, inspect, make_url, text
from sqlalchemy.engine.interfaces import ExecuteStyle
from sqlalchemy.orm import Session

from kongming import exception
from kongming.db.models import VERSION

T = TypeVar("T")

SYNC = "run 'kongming-manage db sync'"

_VERSION_TABLE = "alembic_version"
_WRITER = "kongming_writer"
_SQLITE_BUSY_MS = 30_000
_CONNECT_TIMEOUT_S = 10
_ATTEMPTS = 12
_PAUSE_MAX_S = 0.2

_OTHER_TABLES = re.compile(
    r"no such (table|column)|(relation|column) \S+ does not exist|\((1146|1054),"
)


class Overtaken(Exception):
    """Another transaction has changed what this one began with: it begins anew."""


class Database:
    """One database. Any thread may call any method."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """Take the options of [database]; nothing is connected to yet.

        :raises ConfigInvalid: if the URL can't be used.
        """
        self._url = _usable_url(conf.database.connection)
        self._lock = threading.Lock()
        self._statements = 0
        self._context = enginefacade.transaction_context()
        options = {name: value for name, value in conf.database.items() if value is not None}
        self._context.configure(
            **options | {"connection_parameters": _parameters(self._url, conf)}
        )
        self._context.append_on_engine_create(self._listen)

    @property
    def statements(self) -> int:
        """How many SQL statements were sent since it was made."""
        return self._statements

    @contextmanager
    def reader(self) -> Iterator[Session]:
        """A transaction that reads.

        :raises DatabaseUnavailable: if the database does not answer.
        """
        with self.errors(), self._context.reader.using(_Context()) as session:
            yield session

    @contextmanager
    def writer(self) -> Iterator[Session]:
        """A transaction that writes: all or nothing.

        :raises DatabaseUnavailable: if the database does not answer.
        """
        with self.errors(), self._writing() as session:
            yield session

    def write(self, work: Callable[[Session], T]) -> T:
        """Do some work in a transaction that writes; again if it lost against another one.

        :param work: may be called several times; what it did before is undone.
        :raises DatabaseUnavailable: if the database does not answer, or the
            work loses again and again.
        """
        with self.errors():
            for attempt in range(_ATTEMPTS):
                try:
                    with self._writing() as session:
                        return work(session)
                except (db_exception.DBDeadlock, db_exception.DBDuplicateEntry, Overtaken):
                    # At random, so that those who met don't meet again.
                    time.sleep(random.uniform(0, min(_PAUSE_MAX_S, 0.005 * 2**attempt)))  # noqa: S311
            raise exception.DatabaseUnavailable(
                f"{self.place} is too busy: others changed the same rows {_ATTEMPTS} times in "
                "between; try again"
            )

    @property
    def place(self) -> str:
        """Which database it is, in words that may be shown to anybody."""
        url = self._url
        if url.get_backend_name() == "sqlite":
            return f"the database {url.database or 'in memory'}"
        port = "" if url.port is None else f":{url.port}"
        return f"the database {url.database} ({url.get_backend_name()} at {url.host}{port})"

    def check_schema(self) -> None:
        """Find out whether this version of Kongming can work with the tables.

        :raises DatabaseUnavailable: if not; the message says what to do.
        """
        with self.reader() as session:
            there = schema_version(session.connection())
        if there is None:
            raise exception.DatabaseUnavailable(f"{self.place} has no tables yet: {SYNC}")
        if there != VERSION:
            raise exception.DatabaseUnavailable(
                f"{self.place} has tables of version {there}, this Kongming works with "
                f"{VERSION}: {SYNC}, or install the Kongming that made them"
            )

    def engine(self) -> Engine:
        """Give SQLAlchemy's engine."""
        engine: Engine = self._context.writer.get_engine()
        return engine

    def close(self) -> None:
        """Close all connections; the next use opens new ones."""
        self._context.dispose_pool()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Say what goes wrong with the database in our words.

        :raises DatabaseUnavailable: instead of the errors of SQLAlchemy and oslo.db.
        """
        try:
            yield
        except (
            db_exception.DBError,
            db_exception.CantStartEngineError,
            exc.DBAPIError,
            exc.TimeoutError,
        ) as error:
            said = self._without_secrets(_said(error))
            hint = "check [database] connection, and that the server runs"
            if _OTHER_TABLES.search(said):
                hint = SYNC
            raise exception.DatabaseUnavailable(
                f"{self.place} can't be used: {said}; {hint}"
            ) from error

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with self._context.writer.using(_Context()) as session:
            # Taken now: the begin of an SQLite transaction says that it will write.
            session.connection(execution_options={_WRITER: True})
            yield session

    def _listen(self, engine: Engine) -> None:
        event.listen(engine, "before_cursor_execute", self._count)
        name = engine.dialect.name
        if name == "sqlite":
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "before_cursor_execute", _begin_sqlite, retval=True)
        elif name in ("mysql", "mariadb"):
            event.listen(engine, "connect", _prepare_mysql)

    def _count(
        self,
        connection: Connection,
        _cursor: object,
        _statement: str,
        parameters: Sequence[object],
        context: Any,
        _many: object,
    ) -> None:
        is_many = context is not None and context.execute_style is ExecuteStyle.EXECUTEMANY
        # psycopg2 sends one for each row then; the others don't.
        single = is_many and connection.dialect.name == "postgresql"
        with self._lock:
            self._statements += len(parameters) if single else 1

    def _without_secrets(self, said: str) -> str:
        secrets = [self._url.password]
        secrets += [str(value) for key, value in self._url.query.items() if "pass" in key.lower()]
        for secret in filter(None, secrets):
            said = said.replace(secret, "***")
        return said


class _Context:
    """What enginefacade keeps a transaction in: a new one for each, so that none joins another."""


def schema_version(connection: Connection) -> str | None:
    """Tell which version the tables are of; None if there are none."""
    if not inspect(connection).has_table(_VERSION_TABLE):
        return None
    version: str | None = connection.scalar(text(f"SELECT version_num FROM {_VERSION_TABLE}"))  # noqa: S608
    return version


def _usable_url(written: str | None) -> URL:
    try:
        url = make_url(written or "")
        url.get_dialect().import_dbapi()
    except exc.NoSuchModuleError:
        raise exception.ConfigInvalid(
            f"[database] connection: there is no driver {url.drivername}; use sqlite, "
            "mysql+pymysql or postgresql+psycopg2"
        ) from None
    except ImportError as error:
        raise exception.ConfigInvalid(
            f"[database] connection: the driver of {url.drivername} is not installed ({error}); "
            "install kongming[mysql] or kongming[postgresql]"
        ) from error
    except (exc.ArgumentError, ValueError):
        # Not said why: that would quote the password.
        raise exception.ConfigInvalid(
            "[database] connection is no URL such as mysql+pymysql://user:password@host/kongming; "
            "signs as @ and / in the password are written %40 and %2F"
        ) from None
    return url


def _parameters(url: URL, conf: cfg.ConfigOpts) -> str:
    """Add to what the operator gives the driver what all of Kongming counts on."""
    wanted: dict[str, object] = {}
    if url.get_backend_name() in ("mysql", "mariadb"):
        wanted = {"charset": "utf8mb4", "connect_timeout": _CONNECT_TIMEOUT_S}
    elif url.get_backend_name() == "postgresql":
        wanted = {"connect_timeout": _CONNECT_TIMEOUT_S}
    given = conf.database.connection_parameters
    missing = [
        f"{key}={value}"
        for key, value in wanted.items()
        if key not in url.query and f"{key}=" not in given
    ]
    return "&".join(filter(None, [given, *missing]))


def _said(error: BaseException) -> str:
    """Give the driver's own words, without the statement."""
    inner = getattr(error, "inner_exception", None) or error
    return " ".join(str(getattr(inner, "orig", None) or inner).split())


def _prepare_sqlite(connection: Any, _: object) -> None:
    # Else one text that is not UTF-8 would make all rows unreadable.
    connection.text_factory = lambda raw: raw.decode("utf-8", "backslashreplace")
    connection.execute(f"PRAGMA busy_timeout = {_SQLITE_BUSY_MS}")


def _begin_sqlite(
    connection: Connection, _: object, statement: str, parameters: Any, *__: object
) -> tuple[str, Any]:
    """Take the lock at the begin: oslo.db's transaction would take it when it first writes.

    By then another one may have written, and what was read is no longer true.
    """
    if statement == "BEGIN" and connection.get_execution_options().get(_WRITER):
        statement = "BEGIN IMMEDIATE"
    return statement, parameters


def _prepare_mysql(connection: Any, _: object) -> None:
    """See what others have committed, and lock rows but not the gaps between them."""
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
