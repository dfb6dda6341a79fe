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

"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from kongming.db.migrations.steps import drop_table, make_index, make_table

revision = "0001"
down_revision = None

_INDEXES = (
    ("allocation_by_host", "allocation", ["host"]),
    ("allocation_by_map", "allocation", ["map_name"]),
    ("allocation_by_project", "allocation", ["project_id"]),
    ("outcome_by_host", "outcome", ["host"]),
    ("history_by_instance", "history", ["instance_uuid", "id"]),
    ("history_by_time", "history", ["changed_at"]),
)
TABLES = ("allocation", "outcome", "allocation_map", "history", "host", "lease")


def upgrade() -> None:
    """Create them."""
    _make_allocations()
    _make_history()
    _make_hosts()
    for name, table, columns in _INDEXES:
        make_index(name, table, columns)


def downgrade() -> None:
    """Drop them with their data."""
    for table in reversed(TABLES):
        drop_table(table)


def _make_allocations() -> None:
    make_table(
        "allocation",
        sa.Column("instance_uuid", _string(36), primary_key=True),
        sa.Column("requested", _text()),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("project_id", _string(255)),
        sa.Column("host", _string(255)),
        sa.Column("map_name", _string(255)),
        sa.Column("requested_by", _string(255), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
    )
    make_table(
        "outcome",
        sa.Column("instance_uuid", _string(36), primary_key=True),
        sa.Column("host", _string(255), nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("status", _string(64), nullable=False),
        sa.Column("reason", _string(64), nullable=False),
        sa.Column("message", _text(), nullable=False),
        sa.Column("source", _string(64), nullable=False),
        sa.Column("drift", _text(), nullable=False),
        sa.Column("drift_at", sa.Double),
        sa.Column("changed_at", sa.Double, nullable=False),
        sa.Column("reported_at", sa.Double, nullable=False),
    )
    make_table(
        "allocation_map",
        sa.Column("name", _string(255), primary_key=True),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("deleting", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
    )


def _make_history() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    make_table(
        "history",
        sa.Column("id", number, primary_key=True, autoincrement=True),
        sa.Column("instance_uuid", _string(36), nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("requested", _text()),
        sa.Column("map_name", _string(255)),
        sa.Column("requested_by", _string(255), nullable=False),
        sa.Column("request_id", _string(255), nullable=False),
        sa.Column("requested_at", sa.Double, nullable=False),
        sa.Column("status", _string(64), nullable=False),
        sa.Column("reason", _string(64), nullable=False),
        sa.Column("message", _text(), nullable=False),
        sa.Column("host", _string(255)),
        sa.Column("changed_at", sa.Double, nullable=False),
    )


def _make_hosts() -> None:
    make_table(
        "host",
        sa.Column("name", _string(255), primary_key=True),
        sa.Column("heartbeat_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("version", _string(64), nullable=False),
        sa.Column("interval_s", sa.Double, nullable=False),
        sa.Column("snapshot", _text()),
        sa.Column("snapshot_digest", _string(255), nullable=False),
        sa.Column("snapshot_at", sa.Double),
        sa.Column("guests", sa.Integer, nullable=False),
        sa.Column("violations", sa.Integer, nullable=False),
    )
    make_table(
        "lease",
        sa.Column("name", _string(255), primary_key=True),
        sa.Column("holder", _string(255), nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
    )


def _string(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def _text() -> sa.Text:
    return sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
