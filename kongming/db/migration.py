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

"""The version of the tables: which one is there, and going to another one, up or down."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from kongming import exception
from kongming.db.database import Database, schema_version

_HEAD = "head"
_BASE = "base"
FOLDER = Path(__file__).parent / "migrations"


def versions() -> list[str]:
    """Give all versions that this Kongming knows, the oldest first."""
    script = ScriptDirectory.from_config(_config())
    return [revision.revision for revision in script.walk_revisions()][::-1]


def version(database: Database) -> str | None:
    """Tell which version the tables are of; None if there are none.

    :raises DatabaseUnavailable: if the database does not answer.
    """
    with database.reader() as session:
        return schema_version(session.connection())


def sync(database: Database, wanted: str = _HEAD) -> tuple[str | None, str | None]:
    """Bring the tables to a version, up or down; give the versions before and after.

    :param wanted: one of :func:`versions`, ``head`` for the last one or
        ``base`` for no tables at all.
    :raises ConfigInvalid: if there is no such version.
    :raises DatabaseUnavailable: if the database does not answer, or has tables
        of a newer version.
    """
    known = versions()
    goal = known[-1] if wanted == _HEAD else wanted
    if goal not in (*known, _BASE):
        raise exception.ConfigInvalid(
            f"there is no version {wanted} of the tables: {', '.join(known)}, 'head' or 'base'"
        )
    _prepare(database)
    with database.writer() as session:
        connection = session.connection()
        before = schema_version(connection)
        if before is not None and before not in known:
            raise exception.DatabaseUnavailable(
                f"the tables are of version {before}, which this Kongming does not know: run "
                "the newer Kongming's 'kongming-manage db sync <version>' first"
            )
        _migrate(connection, down=_is_down(known, before, goal), goal=goal)
        return before, schema_version(connection)


def _is_down(known: list[str], before: str | None, goal: str) -> bool:
    order = [_BASE, *known]
    return order.index(goal) < order.index(before or _BASE)


def _migrate(connection: Connection, *, down: bool, goal: str) -> None:
    config = _config()
    config.attributes["connection"] = connection
    config.attributes["transactional"] = connection.dialect.name in ("postgresql", "sqlite")
    try:
        if down:
            command.downgrade(config, goal)
        elif goal != _BASE:
            command.upgrade(config, goal)
    except CommandError as error:
        raise exception.DatabaseUnavailable(f"the tables can't be changed: {error}") from error


def _prepare(database: Database) -> None:
    """Let readers of an SQLite file go on while somebody writes; the file keeps that in mind."""
    with database.errors(), database.engine().connect() as connection:
        if connection.dialect.name == "sqlite":
            # No transaction: SQLite refuses it in one.
            connection.commit()
            connection.connection.cursor().execute("PRAGMA journal_mode = WAL")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    return config
