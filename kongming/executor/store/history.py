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

"""The history of an instance in the store: what was asked, and what came of it."""

from __future__ import annotations

import sqlite3
from typing import Any

from kongming.allocation import stored
from kongming.allocation.statuses import Status
from kongming.executor.store.record import Change, Record, written

#: So many entries are kept of each instance, the latest ones.
MAX_ENTRIES = 1_000

COLUMNS = "asked_at, source, asked_by, asked, status, reason, message, changed_at"


def read(row: tuple[Any, ...]) -> Change:
    """Read a row of :data:`COLUMNS`, whatever it holds."""
    at, source, by, asked, status, reason, message, changed_at = row
    return Change(
        stored.maybe_moment(at),
        stored.text(source),
        stored.text(by),
        stored.load(asked),
        stored.text(status),
        stored.text(reason),
        stored.text(message),
        stored.moment(changed_at),
    )


def remember(db: sqlite3.Connection, instance_uuid: str, *entry: object) -> None:
    """Add an entry, and forget those that are too many.

    :param entry: all other columns.
    """
    db.execute(
        "INSERT INTO history (instance_uuid, generation, asked_at, source, asked_by, asked,"
        " status, reason, message, changed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (instance_uuid, *entry),
    )
    db.execute(
        "DELETE FROM history WHERE instance_uuid = ?1 AND id <= (SELECT id FROM history"
        " WHERE instance_uuid = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        (instance_uuid, MAX_ENTRIES),
    )


def complete(
    db: sqlite3.Connection, record: Record, status: Status, reason: str, message: str, now: float
) -> None:
    """Complete the entry of what was asked, or begin one for what came later."""
    of = (record.instance_uuid, record.generation)
    completed = db.execute(
        "UPDATE history SET status = ?, reason = ?, message = ?, changed_at = ?"
        " WHERE id = (SELECT max(id) FROM history WHERE instance_uuid = ?)"
        " AND generation = ? AND status = ?",
        (status, reason, message, now, *of, Status.PENDING),
    ).rowcount
    if not completed:
        asked = written(record.asked)
        remember(db, *of, None, record.source, "", asked, status, reason, message, now)
