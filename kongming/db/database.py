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

"""Access to the database: transactions with retries, and errors that say what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
import functools
import itertools
from pathlib import Path
import random
import threading
import time
from typing import Any, TypeVar

from oslo_config import cfg
from oslo_db.sqlalchemy import enginefacade
from sqlalchemy import Connection, Dialect, Engine, event, inspect, text, update
from sqlalchemy.engine.interfaces import ExecuteStyle
from sqlalchemy.orm import Session

from kongming import exception
from kongming.db import connecting, errors
from kongming.db.connecting import Limits
from kongming.db.errors import SYNC
from kongming.db.liveness import Liveness
from kongming.db.models import LEASE, VERSION
from kongming.runtime import ownership
from kongming.runtime.server_threads import ServerThreads

T = TypeVar("T")

_VERSION_TABLE = "alembic_version"
_WRITER = "kongming_writer"
_ATTEMPTS = 12
_PAUSE_MAX_S = 0.2
# After this time retries are of no use: others keep the same rows locked.
_BUSY_S = 5.0
# Limit of the check that an idle connection still works.
_PING_S = 0.5
# Limit of a probe, so that its thread ends.
_PROBE_S = 3
_WAITS = ("do_execute", "do_execute_no_params", "do_executemany", "do_commit", "do_rollback")


class StaleRead(Exception):
    """Another transaction has changed what this one has read: it is retried."""


class Database:
    """One database. Any thread may call any method."""

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        limits: Limits = connecting.SERVICE,
        threads: ServerThreads | None = None,
    ) -> None:
        """Read the options of [database], without connecting.

        :param threads: those of the WSGI server; the last free one does not wait for the database.
        :raises ConfigInvalid: if the URL can't be used.
        """
        self._limits = limits
        url = connecting.usable_url(conf.database.connection)
        given = conf.database.connection_parameters
        self._url = connecting.complete(url, given, limits.statement_s)
        self._backend = url.get_backend_name()
        self._lock = threading.Lock()
        self._statements = 0
        self._liveness = Liveness(self.place, self._probe, limits.answer_s, threads)
        self._context = enginefacade.transaction_context()
        options = {name: value for name, value in conf.database.items() if value is not None}
        connection = self._url.render_as_string(hide_password=False)
        self._context.configure(
            **options | {"connection": connection, "connection_parameters": ""}
        )
        self._context.append_on_engine_create(self._listen)

    @property
    def statements(self) -> int:
        """The number of SQL statements sent so far."""
        return self._statements

    @contextmanager
    def reader(self) -> Iterator[Session]:
        """Open a transaction that reads.

        :raises DatabaseUnavailable: if the database can't be used.
        """
        with self.errors(), self._context.reader.using(_Context()) as session:
            yield session

    @contextmanager
    def writer(self) -> Iterator[Session]:
        """Open a transaction that writes.

        :raises DatabaseUnavailable: if the database can't be used.
        """
        with self.errors(), self.writing() as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Open a transaction that writes, and pass on the libraries' errors."""
        with self._context.writer.using(_Context()) as session:
            # An SQLite transaction must be marked as writing before it begins.
            session.connection(execution_options={_WRITER: True})
            yield session

    def write(self, work: Callable[[Session], T]) -> T:
        """Run a function in a transaction that writes; retry if another transaction interfered.

        Retry once, too, if the server of the connection accepts no writes: another connection may
        lead to the primary.

        :param work: may be called several times, each time in a new transaction.
        :raises DatabaseUnavailable: if the database can't be used, or all attempts failed.
        """
        began = time.monotonic()
        unfit = 0
        with self.errors():
            for attempt in itertools.count():
                try:
                    with self.writing() as session:
                        return work(session)
                except StaleRead:
                    pass
                except errors.ERRORS as error:
                    meaning = errors.meaning(error)
                    unfit += meaning.unfit
                    if not meaning.again and (not meaning.unfit or unfit > 1):
                        raise
                if attempt + 1 >= _ATTEMPTS or time.monotonic() - began > _BUSY_S:
                    break
                # Random, so that two transactions don't collide again.
                time.sleep(random.uniform(0, min(_PAUSE_MAX_S, 0.005 * 2**attempt)))  # noqa: S311
            raise exception.DatabaseUnavailable(
                f"{self.place} is too busy: other transactions locked or changed the same rows, "
                f"{attempt + 1} times in succession; retry"
            )

    @property
    def place(self) -> str:
        """The name of the database for messages, without credentials."""
        url = self._url
        if url.get_backend_name() == connecting.SQLITE:
            return f"the database {url.database or 'in memory'}"
        port = "" if url.port is None else f":{url.port}"
        return f"the database {url.database} ({url.get_backend_name()} at {url.host}{port})"

    def check_schema(self) -> None:
        """Check that this version of Kongming can use the tables.

        :raises DatabaseUnavailable: if not; the message says what to do.
        """
        with self.reader() as session:
            self._check_schema(session)

    def check_writes(self) -> None:
        """Check that the database accepts writes, without changing anything.

        :raises DatabaseUnavailable: if not; the message says what to do.
        """

        def work(session: Session) -> None:
            self._check_schema(session)
            # No lease has this name; a read-only server refuses the statement all the same.
            nothing = update(LEASE).where(LEASE.c.name == "").values(holder=LEASE.c.holder)
            session.execute(nothing)

        self.write(work)

    def _check_schema(self, session: Session) -> None:
        there = schema_version(session.connection())
        if there is None:
            raise exception.DatabaseUnavailable(f"{self.place} has no tables: {SYNC}")
        if there != VERSION:
            raise exception.DatabaseUnavailable(
                f"{self.place} has tables of version {there}, this Kongming requires "
                f"{VERSION}: {SYNC}, or install the Kongming that made them"
            )

    def engine(self) -> Engine:
        """Return SQLAlchemy's engine."""
        engine: Engine = self._context.writer.get_engine()
        return engine

    def close(self) -> None:
        """Close all connections; the next use opens new ones."""
        self._context.dispose_pool()
        self._liveness.close()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Translate the errors of SQLAlchemy and oslo.db.

        :raises DatabaseUnavailable: if the database can't be used.
        :raises DatabaseFault: if the statement was wrong, which is a fault of Kongming.
        """
        try:
            yield
        except errors.ERRORS as error:
            self._liveness.explain()
            meaning = errors.meaning(error)
            text = errors.text(error)
            if meaning.own_fault:
                raise exception.DatabaseFault(
                    f"{self.place} refuses a statement: {text}; {meaning.hint}"
                ) from error
            hint = self._owned_by_another() or meaning.hint
            raise exception.DatabaseUnavailable(
                f"{self.place} can't be used: {text}; {hint}",
                f"{self.place} can't be used: {meaning.hint}",
            ) from error

    def _owned_by_another(self) -> str | None:
        """Return what to do about a file that belongs to another user; None if it does not."""
        if self._backend != connecting.SQLITE or not self._url.database:
            return None
        file = Path(self._url.database)
        return ownership.explain([file, file.parent], tool=True)

    def _listen(self, engine: Engine) -> None:
        event.listen(engine, "before_cursor_execute", self._count)
        if self._backend == connecting.SQLITE:
            event.listen(engine, "connect", connecting.prepare_sqlite)
            event.listen(engine, "before_cursor_execute", _begin_sqlite, retval=True)
            return
        _discard_unfit(engine.dialect)
        event.listen(engine, "do_connect", self._connect)
        for name in ("close", "close_detached"):
            event.listen(engine, name, lambda connection, *_: self._liveness.forget(connection))
        for name in _WAITS:
            self._limit(engine.dialect, name)
        # SQLAlchemy calls it for each connection from its pool.
        vars(engine.dialect)["do_ping"] = self._is_fit

    def _connect(self, dialect: Dialect, _: object, arguments: Any, named: Any) -> Any:
        def make() -> Any:
            connection = dialect.connect(*arguments, **named)
            connecting.prepare(connection, self._backend, self._limits.lock_s)
            return connection

        connection = self._liveness.connect(make, dialect.do_close, connecting.CONNECT_S)
        self._liveness.watch(connection)
        return connection

    def _limit(self, dialect: Dialect, name: str) -> None:
        """Limit the time of each call of a method of a dialect."""
        method = getattr(dialect, name)

        @functools.wraps(method)
        def limited(first: Any, *others: Any, **named: Any) -> Any:
            # The driver's cursor or connection, or the pool's wrapper of it.
            connection = getattr(first, "dbapi_connection", None) or first
            if "execute" in name:
                connection = first.connection
            with self._liveness.waiting(connection, self._limits.statement_s):
                return method(first, *others, **named)

        vars(dialect)[name] = limited

    def _is_fit(self, connection: Any) -> bool:
        """Return whether a connection works, and leads to a server that accepts writes."""
        self._liveness.check()
        with self._liveness.waiting(connection, _PING_S):
            return connecting.accepts_writes(connection, self._backend)

    def _probe(self) -> None:
        """Query the database over a connection of its own.

        :raises TimeoutError: if it has not responded within the time limits of the driver.
        """
        dialect = self.engine().dialect
        arguments, named = dialect.create_connect_args(self._url)
        shorter = {name: _PROBE_S for name in ("connect_timeout", "read_timeout") if name in named}
        began = time.monotonic()
        try:
            with closing(dialect.connect(*arguments, **{**named, **shorter})) as connection:
                connecting.accepts_writes(connection, self._backend)
        except Exception as error:
            # Drivers have no error of their own for it; libpq counts in whole seconds.
            if time.monotonic() - began > _PROBE_S - 1:
                raise TimeoutError from error
            raise

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
        # Then psycopg2 sends a statement for each row; the other drivers don't.
        single = is_many and connection.dialect.name == "postgresql"
        with self._lock:
            self._statements += len(parameters) if single else 1


class _Context:
    """The state of a transaction for enginefacade: one for each, so that none joins another."""


def schema_version(connection: Connection) -> str | None:
    """Return the version of the tables; None if there are none."""
    if not inspect(connection).has_table(_VERSION_TABLE):
        return None
    version: str | None = connection.scalar(text(f"SELECT version_num FROM {_VERSION_TABLE}"))  # noqa: S608
    return version


def _discard_unfit(dialect: Dialect) -> None:
    """Have SQLAlchemy discard its connections after an error that makes them useless."""
    is_disconnect = dialect.is_disconnect

    def is_over(error: Any, *others: Any) -> bool:
        meaning = errors.meaning(error)
        return meaning.unfit or meaning.last or is_disconnect(error, *others)

    vars(dialect)["is_disconnect"] = is_over


def _begin_sqlite(
    connection: Connection, _: object, statement: str, parameters: Any, *__: object
) -> tuple[str, Any]:
    """Lock the file when the transaction begins: oslo.db's would lock it at its first write.

    By then another transaction may have changed what this one has read.
    """
    if statement == "BEGIN" and connection.get_execution_options().get(_WRITER):
        statement = "BEGIN IMMEDIATE"
    return statement, parameters
