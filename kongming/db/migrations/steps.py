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

"""The steps of migrations. Each skips what is done, so that a migration can be repeated.

MariaDB commits each change of a table at once, so an interrupted migration leaves some done.
"""

from __future__ import annotations

from collections.abc import Sequence

from alembic import op
import sqlalchemy as sa

from kongming import exception


def make_table(name: str, *columns: sa.Column[object]) -> None:
    """Create a table unless it exists.

    :raises DatabaseUnavailable: if a table of this name exists that is not Kongming's.
    """
    if sa.inspect(op.get_bind()).has_table(name):
        # An interrupted migration may have added columns.
        if not {column.name for column in columns} <= _columns(name):
            raise exception.DatabaseUnavailable(
                f"the table {name} exists and is not Kongming's: name a separate database in "
                "[database] connection"
            )
        return
    op.create_table(
        name,
        *columns,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mariadb_engine="InnoDB",
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_bin",
    )


def make_column(table: str, column: sa.Column[object]) -> None:
    """Add a column to a table unless it exists."""
    if column.name not in _columns(table):
        op.add_column(table, column)


def drop_column(table: str, name: str) -> None:
    """Drop a column with its data, if it exists."""
    if name in _columns(table):
        op.drop_column(table, name)


def _columns(table: str) -> set[str]:
    return {column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)}


def make_index(name: str, table: str, columns: Sequence[str]) -> None:
    """Create an index unless it exists."""
    if name not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}:
        op.create_index(name, table, list(columns))


def drop_table(name: str) -> None:
    """Drop a table with its data, if it exists."""
    if sa.inspect(op.get_bind()).has_table(name):
        op.drop_table(name)
