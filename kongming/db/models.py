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

"""The tables. :mod:`kongming.db.values` describes their contents.

There are no foreign keys: the database would lock the rows they refer to, in an order of its own.
"""

from __future__ import annotations

from typing import cast

from sqlalchemy import BigInteger, Boolean, Double, Index, Integer, String, Table, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# The migration that leads to these tables.
VERSION = "0002"

UUID_LENGTH = 36
NAME_LENGTH = 255
WORD_LENGTH = 64


def _name(length: int) -> String:
    """Return a type for strings that are compared byte by byte."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


UUID = _name(UUID_LENGTH)
NAME = _name(NAME_LENGTH)
WORD = _name(WORD_LENGTH)
# MariaDB's TEXT ends at 64 KiB.
TEXT = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
# SQLite autoincrements only an INTEGER.
ID = BigInteger().with_variant(Integer(), "sqlite")

_OPTIONS = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (
        ("engine", "InnoDB"),
        ("charset", "utf8mb4"),
        ("collate", "utf8mb4_bin"),
    )
}


class Base(DeclarativeBase):
    """The base of all tables."""


class Allocation(Base):
    """The desired allocations; ``requested`` is JSON, NULL for a release."""

    __tablename__ = "allocation"
    __table_args__ = (
        Index("allocation_by_host", "host"),
        Index("allocation_by_map", "map_name"),
        Index("allocation_by_project", "project_id"),
        _OPTIONS,
    )

    instance_uuid: Mapped[str] = mapped_column(UUID, primary_key=True)
    requested: Mapped[str | None] = mapped_column(TEXT)
    generation: Mapped[int] = mapped_column(BigInteger)
    project_id: Mapped[str | None] = mapped_column(NAME)
    host: Mapped[str | None] = mapped_column(NAME)
    map_name: Mapped[str | None] = mapped_column(NAME)
    requested_by: Mapped[str] = mapped_column(NAME)
    created_at: Mapped[float] = mapped_column(Double)
    updated_at: Mapped[float] = mapped_column(Double)


class Outcome(Base):
    """The last report of an instance by a host."""

    __tablename__ = "outcome"
    __table_args__ = (Index("outcome_by_host", "host"), _OPTIONS)

    instance_uuid: Mapped[str] = mapped_column(UUID, primary_key=True)
    host: Mapped[str] = mapped_column(NAME)
    generation: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(WORD)
    reason: Mapped[str] = mapped_column(WORD)
    message: Mapped[str] = mapped_column(TEXT)
    source: Mapped[str] = mapped_column(WORD)
    drift: Mapped[str] = mapped_column(TEXT)
    drift_at: Mapped[float | None] = mapped_column(Double)
    changed_at: Mapped[float] = mapped_column(Double)
    reported_at: Mapped[float] = mapped_column(Double)
    unobserved: Mapped[str | None] = mapped_column(TEXT)


class AllocationMap(Base):
    """The allocation maps; the instances name their map."""

    __tablename__ = "allocation_map"
    __table_args__ = (_OPTIONS,)

    name: Mapped[str] = mapped_column(NAME, primary_key=True)
    generation: Mapped[int] = mapped_column(BigInteger)
    deleting: Mapped[bool] = mapped_column(Boolean)
    created_at: Mapped[float] = mapped_column(Double)
    updated_at: Mapped[float] = mapped_column(Double)


class History(Base):
    """The requests with their outcomes."""

    __tablename__ = "history"
    __table_args__ = (
        Index("history_by_instance", "instance_uuid", "id"),
        Index("history_by_time", "changed_at"),
        _OPTIONS,
    )

    id: Mapped[int] = mapped_column(ID, primary_key=True, autoincrement=True)
    instance_uuid: Mapped[str] = mapped_column(UUID)
    generation: Mapped[int] = mapped_column(BigInteger)
    requested: Mapped[str | None] = mapped_column(TEXT)
    map_name: Mapped[str | None] = mapped_column(NAME)
    requested_by: Mapped[str] = mapped_column(NAME)
    request_id: Mapped[str] = mapped_column(NAME)
    requested_at: Mapped[float] = mapped_column(Double)
    status: Mapped[str] = mapped_column(WORD)
    reason: Mapped[str] = mapped_column(WORD)
    message: Mapped[str] = mapped_column(TEXT)
    host: Mapped[str | None] = mapped_column(NAME)
    changed_at: Mapped[float] = mapped_column(Double)


class Host(Base):
    """The compute hosts' executors; ``snapshot`` is JSON."""

    __tablename__ = "host"
    __table_args__ = (_OPTIONS,)

    name: Mapped[str] = mapped_column(NAME, primary_key=True)
    heartbeat_at: Mapped[float] = mapped_column(Double)
    started_at: Mapped[float] = mapped_column(Double)
    version: Mapped[str] = mapped_column(WORD)
    interval_s: Mapped[float] = mapped_column(Double)
    snapshot: Mapped[str | None] = mapped_column(TEXT)
    snapshot_digest: Mapped[str] = mapped_column(NAME)
    snapshot_at: Mapped[float | None] = mapped_column(Double)
    guests: Mapped[int]
    violations: Mapped[int]


class Lease(Base):
    """The leases, each with its holder and its end."""

    __tablename__ = "lease"
    __table_args__ = (_OPTIONS,)

    name: Mapped[str] = mapped_column(NAME, primary_key=True)
    holder: Mapped[str] = mapped_column(NAME)
    expires_at: Mapped[float] = mapped_column(Double)


ALLOCATION = cast(Table, Allocation.__table__)
OUTCOME = cast(Table, Outcome.__table__)
ALLOCATION_MAP = cast(Table, AllocationMap.__table__)
HISTORY = cast(Table, History.__table__)
HOST = cast(Table, Host.__table__)
LEASE = cast(Table, Lease.__table__)
