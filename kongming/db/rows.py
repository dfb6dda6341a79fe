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

"""Queries for entries and history, and conversion of their rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import json
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, case, func, or_, select, union

from kongming.allocation import stored
from kongming.allocation.allocation import Allocation
from kongming.allocation.statuses import Status
from kongming.db.models import ALLOCATION, HISTORY, OUTCOME
from kongming.db.values import Change, Entry, Outcome

AnyRow = Row[Any]
AnySelect = Select[Any]

_PREFIX = "outcome_"


def dump(allocation: Allocation) -> str:
    """Serialize an allocation. Equal allocations may have different texts."""
    return json.dumps(allocation.to_json(), sort_keys=True, separators=(",", ":"))


def entries() -> AnySelect:
    """Select all allocations with their outcomes; :func:`entry` converts a row."""
    outcome = [column.label(_PREFIX + column.name) for column in OUTCOME.c]
    joined = ALLOCATION.outerjoin(OUTCOME, ALLOCATION.c.instance_uuid == OUTCOME.c.instance_uuid)
    return select(*ALLOCATION.c, *outcome).select_from(joined)


def entries_on(host: str) -> AnySelect:
    """Select like :func:`entries`, but only instances that a host has or reported last."""
    there = union(
        select(ALLOCATION.c.instance_uuid).where(ALLOCATION.c.host == host),
        select(OUTCOME.c.instance_uuid).where(OUTCOME.c.host == host),
    ).subquery()
    # A join, because an OR would use no index.
    return entries().join(there, ALLOCATION.c.instance_uuid == there.c.instance_uuid)


def without_host() -> AnySelect:
    """Select the instances that are on no host, and have no outcome that says so yet."""
    joined = ALLOCATION.outerjoin(OUTCOME, ALLOCATION.c.instance_uuid == OUTCOME.c.instance_uuid)
    unreported = or_(
        ALLOCATION.c.requested.is_(None),
        OUTCOME.c.generation.is_(None),
        OUTCOME.c.generation != ALLOCATION.c.generation,
    )
    unheld = or_(OUTCOME.c.host.is_(None), OUTCOME.c.host == "")
    return (
        select(ALLOCATION.c.instance_uuid)
        .select_from(joined)
        .where(ALLOCATION.c.host.is_(None), unheld, unreported)
    )


def is_at(host: str) -> ColumnElement[bool]:
    """Return the condition that an instance is on a host, or was last reported by it."""
    reported = and_(ALLOCATION.c.host.is_(None), OUTCOME.c.host == host)
    return or_(ALLOCATION.c.host == host, reported)


def has_status(status: str) -> ColumnElement[bool]:
    """Return the condition that corresponds to :attr:`Entry.status`."""
    return _status() == status


def counts() -> Select[str, int]:
    """Select the number of instances of each status."""
    joined = ALLOCATION.outerjoin(OUTCOME, ALLOCATION.c.instance_uuid == OUTCOME.c.instance_uuid)
    status = _status().label("status")
    return select(status, func.count().label("number")).select_from(joined).group_by(status)


def _status() -> ColumnElement[str]:
    return case(
        (ALLOCATION.c.requested.is_(None), Status.RELEASING.value),
        (OUTCOME.c.generation == ALLOCATION.c.generation, OUTCOME.c.status),
        else_=Status.PENDING.value,
    )


def entry(row: AnyRow) -> Entry:
    """Convert a row of :func:`entries`."""
    fields = row._asdict()
    outcome = None
    if fields["outcome_instance_uuid"] is not None:
        outcome = outcome_of({column.name: fields[_PREFIX + column.name] for column in OUTCOME.c})
    return entry_of(fields, outcome)


def entry_of(fields: Mapping[str, Any], outcome: Outcome | None) -> Entry:
    """Convert the columns of the table allocation."""
    return Entry(
        instance_uuid=fields["instance_uuid"],
        allocation=stored.load(fields["requested"]),
        generation=stored.integer(fields["generation"]),
        project_id=fields["project_id"],
        host=fields["host"],
        map_name=fields["map_name"],
        requested_by=stored.text(fields["requested_by"]),
        created_at=stored.moment(fields["created_at"]),
        updated_at=stored.moment(fields["updated_at"]),
        outcome=outcome,
    )


def outcome_of(fields: Mapping[str, Any]) -> Outcome:
    """Convert the columns of the table outcome."""
    return Outcome(
        instance_uuid=fields["instance_uuid"],
        host=stored.text(fields["host"]),
        generation=stored.integer(fields["generation"]),
        status=Status.of(stored.text(fields["status"])),
        reason=stored.text(fields["reason"]),
        message=stored.text(fields["message"]),
        source=stored.text(fields["source"]),
        drift=stored.text(fields["drift"]),
        drift_at=stored.maybe_moment(fields["drift_at"]),
        changed_at=stored.moment(fields["changed_at"]),
        reported_at=stored.moment(fields["reported_at"]),
        unobserved=None if fields["unobserved"] is None else stored.text(fields["unobserved"]),
    )


def change(row: AnyRow) -> Change:
    """Convert a row of the table history."""
    return Change(
        id=row.id,
        instance_uuid=row.instance_uuid,
        generation=stored.integer(row.generation),
        allocation=stored.load(row.requested),
        map_name=row.map_name,
        requested_by=stored.text(row.requested_by),
        request_id=stored.text(row.request_id),
        requested_at=stored.moment(row.requested_at),
        status=Status.of(stored.text(row.status)),
        reason=stored.text(row.reason),
        message=stored.text(row.message),
        host=row.host,
        changed_at=stored.moment(row.changed_at),
    )


def latest_changes(instance_uuids: Iterable[str]) -> AnySelect:
    """Select the last entry of each instance's history."""
    last = (
        select(func.max(HISTORY.c.id).label("id"))
        .where(HISTORY.c.instance_uuid.in_(list(instance_uuids)))
        .group_by(HISTORY.c.instance_uuid)
        .subquery()
    )
    return select(HISTORY).join(last, HISTORY.c.id == last.c.id)


def clean(text: str, length: int | None = None) -> str:
    """Replace characters that not every database accepts, and truncate to the column's length."""
    cleaned = text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    return cleaned if length is None else cleaned[:length]
