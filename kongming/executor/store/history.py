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

"""The history of an instance in the store: requests and their outcomes."""

from __future__ import annotations

import sqlite3
from typing import Any

from kongming.allocation import stored
from kongming.allocation.statuses import Status
from kongming.executor.store.record import HistoryEntry, Record, dump_requested

#: How many entries of each instance are kept, the latest ones.
MAX_ENTRIES = 1_000

COLUMNS = "requested_at, source, requested_by, requested, status, reason, message, changed_at"


def read(row: tuple[Any, ...]) -> HistoryEntry:
    """Read a row of :data:`COLUMNS`, whatever it contains."""
    at, source, by, requested, status, reason, message, changed_at = row
    return HistoryEntry(
        stored.maybe_moment(at),
        stored.text(source),
        stored.text(by),
        stored.load(requested),
        stored.text(status),
        stored.text(reason),
        stored.text(message),
        stored.moment(changed_at),
    )


def add(db: sqlite3.Connection, instance_uuid: str, *entry: object) -> None:
    """Add an entry, and delete the oldest ones beyond :data:`MAX_ENTRIES`.

    :param entry: all other columns.
    """
    db.execute(
        "INSERT INTO history (instance_uuid, generation, requested_at, source, requested_by,"
        " requested, status, reason, message, changed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
    """Complete the entry of a request with its outcome, or add one for a later outcome."""
    of = (record.instance_uuid, record.generation)
    completed = db.execute(
        "UPDATE history SET status = ?, reason = ?, message = ?, changed_at = ?"
        " WHERE id = (SELECT max(id) FROM history WHERE instance_uuid = ?)"
        " AND generation = ? AND status = ?",
        (status, reason, message, now, *of, Status.PENDING),
    ).rowcount
    if not completed:
        requested = dump_requested(record.requested)
        add(db, *of, None, record.source, "", requested, status, reason, message, now)
