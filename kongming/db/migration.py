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

"""The version of the tables, and migrations to another version, up or down."""

from __future__ import annotations

import logging
from pathlib import Path
import sqlite3
import time
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Select, func, inspect, select
from sqlalchemy.orm import Session

from kongming import exception
from kongming.db import connecting, errors, models
from kongming.db.database import Database, schema_version

LOG = logging.getLogger(__name__)

_HEAD = "head"
_BASE = "base"
# The lock for creating and changing tables.
_LOCK = 0x6B6F6E67
_WAIT_S = 0.2
# Errors if two processes change the tables over two nodes of a cluster, which share no lock.
_OVERTAKEN = frozenset({1050, 1051, 1060, 1061, 1062, 1091, 1205, 1213, 1684})
_ATTEMPTS = 10
_FILE_ATTEMPTS = 150
FOLDER = Path(__file__).parent / "migrations"


def versions() -> list[str]:
    """Return all versions that this Kongming supports, the oldest first."""
    script = ScriptDirectory.from_config(_config())
    return [revision.revision for revision in script.walk_revisions()][::-1]


def version(database: Database) -> str | None:
    """Return the version of the tables; None if there are none.

    :raises DatabaseUnavailable: if the database can't be used.
    """
    with database.reader() as session:
        return schema_version(session.connection())


def sync(database: Database, target: str = _HEAD) -> tuple[str | None, str | None]:
    """Migrate the tables to a version, up or down; return the versions before and after.

    :param target: one of :func:`versions`, ``head`` for the last one or ``base`` for no tables at
        all.
    :raises ConfigInvalid: if the version is unknown.
    :raises DatabaseUnavailable: if the database can't be used, or has tables of a newer version.
    """
    supported = versions()
    goal = supported[-1] if target == _HEAD else target
    if goal not in (*supported, _BASE):
        raise exception.ConfigInvalid(
            f"unknown version {target} of the tables: use {', '.join(supported)}, 'head' or 'base'"
        )
    _prepare(database)
    with database.errors():
        for _ in range(_ATTEMPTS):
            try:
                with database.writing() as session:
                    _lock(session)
                    return _sync(session.connection(), supported, goal)
            except errors.ERRORS as error:
                if errors.code(error) not in _OVERTAKEN:
                    raise
                time.sleep(_WAIT_S)
            finally:
                # The lock belongs to the connection.
                database.close()
    raise exception.DatabaseUnavailable("another process changes the same tables: retry")


def _sync(
    connection: Connection, supported: list[str], goal: str
) -> tuple[str | None, str | None]:
    before = schema_version(connection)
    if before is not None and before not in supported:
        raise exception.DatabaseUnavailable(
            f"the tables are of version {before}, which this Kongming does not know: run "
            "the newer Kongming's 'kongming-manage db sync <version>' first"
        )
    if _is_interrupted(connection, before, supported):
        # Repeat all steps, which skip what is done; then migrate to the target.
        command.stamp(_config(connection), _BASE)
        _migrate(connection, down=False, goal=supported[-1])
    now = schema_version(connection)
    _migrate(connection, down=_is_down(supported, now, goal), goal=goal)
    return before, schema_version(connection)


def _is_interrupted(connection: Connection, version: str | None, supported: list[str]) -> bool:
    """Return whether the tables differ from their version, because a migration was interrupted."""
    inspector = inspect(connection)
    expected = models.Base.metadata.tables
    there = set(inspector.get_table_names()) & expected.keys()
    if version is None:
        return bool(there)
    if not _tables(version) <= there:
        return True
    return version == supported[-1] and any(
        set(expected[name].columns.keys()) - {each["name"] for each in inspector.get_columns(name)}
        for name in there
    )


def _tables(version: str) -> set[str]:
    """Return the names of a version's tables."""
    script = ScriptDirectory.from_config(_config())
    return {
        table
        for revision in script.iterate_revisions(version, _BASE)
        for table in getattr(revision.module, "TABLES", ())
    }


def _lock(session: Session) -> None:
    """Wait until no other process changes the tables, and lock them."""
    backend = session.get_bind().dialect.name
    if backend == connecting.SQLITE:
        # SQLite allows a single writer.
        return
    taken: Select[Any] = select(func.pg_try_advisory_xact_lock(_LOCK))
    if backend != connecting.POSTGRESQL:
        taken = select(func.get_lock(func.concat(f"{_LOCK}.", func.sha1(func.database())), 0))
    if not session.scalar(taken):
        LOG.warning("Another process is changing the tables: waiting until it has finished")
        while not session.scalar(taken):
            time.sleep(_WAIT_S)


def _is_down(supported: list[str], before: str | None, goal: str) -> bool:
    order = [_BASE, *supported]
    return order.index(goal) < order.index(before or _BASE)


def _migrate(connection: Connection, *, down: bool, goal: str) -> None:
    config = _config(connection)
    try:
        if down:
            command.downgrade(config, goal)
        elif goal != _BASE:
            command.upgrade(config, goal)
    except CommandError as error:
        raise exception.DatabaseUnavailable(f"the tables can't be changed: {error}") from error


def _prepare(database: Database) -> None:
    """Enable WAL mode on an SQLite file, so that readers don't wait for a writer."""
    with database.errors(), database.engine().connect() as connection:
        if connection.dialect.name != connecting.SQLITE:
            return
        # SQLite refuses this in a transaction, and does not wait for other users of the file.
        connection.commit()
        cursor = connection.connection.cursor()
        for _ in range(_FILE_ATTEMPTS):
            try:
                cursor.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                problem = error
                time.sleep(_WAIT_S)
            else:
                return
        raise exception.DatabaseUnavailable(
            f"{database.place} can't be used: {problem}; stop other processes that use the file"
        )


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    if connection is not None:
        config.attributes["connection"] = connection
        transactional = connection.dialect.name in (connecting.POSTGRESQL, connecting.SQLITE)
        config.attributes["transactional"] = transactional
    return config
