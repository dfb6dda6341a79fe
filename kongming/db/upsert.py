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

"""Bulk writes, in the dialect of each database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Insert, Table, insert
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Session


def upsert(
    session: Session,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    changing: Iterable[str],
) -> None:
    """Insert rows, or update some columns of those that exist, in one statement.

    :param rows: all with the same columns, among them the primary key.
    :param changing: the columns to update.
    """
    if rows:
        session.execute(_statement(session, table, list(changing)), list(rows))


def add(session: Session, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows in one statement."""
    if rows:
        session.execute(insert(table), list(rows))


def add_if_missing(session: Session, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert a row unless its primary key exists; return whether it was inserted."""
    dialect = session.get_bind().dialect.name
    if dialect == "postgresql":
        statement: Insert = postgresql.insert(table).on_conflict_do_nothing()
    elif dialect == "sqlite":
        statement = sqlite.insert(table).on_conflict_do_nothing()
    else:
        statement = mysql.insert(table).prefix_with("IGNORE")
    result: Any = session.execute(statement.values(dict(row)))
    return bool(result.rowcount)


def _statement(session: Session, table: Table, changing: Sequence[str]) -> Insert:
    dialect = session.get_bind().dialect.name
    keys = list(table.primary_key.columns)
    if dialect == "postgresql":
        of_postgresql = postgresql.insert(table)
        excluded = {name: of_postgresql.excluded[name] for name in changing}
        written = of_postgresql.on_conflict_do_update(index_elements=keys, set_=excluded)
        # Otherwise SQLAlchemy would send a statement for each row (its issue 13130).
        return written.returning(*keys)
    if dialect == "sqlite":
        of_sqlite = sqlite.insert(table)
        excluded = {name: of_sqlite.excluded[name] for name in changing}
        return of_sqlite.on_conflict_do_update(index_elements=keys, set_=excluded)
    of_mysql = mysql.insert(table)
    new: dict[str, ColumnElement[Any]] = {name: of_mysql.inserted[name] for name in changing}
    return of_mysql.on_duplicate_key_update(new)
