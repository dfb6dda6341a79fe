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

"""Which of an instance's requests takes precedence: it becomes the desired allocation."""

from __future__ import annotations

import sqlite3
import time

from kongming import exception
from kongming.allocation import stored
from kongming.allocation.request import Request, Source
from kongming.allocation.statuses import Status
from kongming.allocation.stored import Unreadable
from kongming.executor.store import history
from kongming.executor.store.record import dump, reason_and_message, storable

_ORDER = [*Source]
_EMPTY = "{}"


def rank(source: object) -> int:
    """Return the precedence of a source: the highest one wins."""
    # Another version may have other sources.
    return _ORDER.index(source) if source in _ORDER else -1


def save(db: sqlite3.Connection, instance_uuid: str, request: Request) -> bool:
    """Save a request in place of its source's former one; return whether it differs."""
    refusal = request.requested if isinstance(request.requested, exception.Refused) else None
    return bool(
        db.execute(
            "INSERT INTO request VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET requested = excluded.requested, reason = excluded.reason,"
            " message = excluded.message, requested_by = excluded.requested_by,"
            " requested_at = excluded.requested_at, generation = excluded.generation"
            " WHERE requested IS NOT excluded.requested OR message != excluded.message"
            " OR generation != excluded.generation",
            (
                instance_uuid,
                request.source,
                None
                if isinstance(request.requested, exception.Refused)
                else dump(request.requested),
                *reason_and_message(refusal),
                storable(request.requested_by),
                request.requested_at,
                request.generation,
            ),
        ).rowcount
    )


def update_desired(db: sqlite3.Connection, instance_uuid: str, by: str = "") -> bool:
    """Make the request that takes precedence the desired allocation; return whether it changes.

    Without any request, nothing is accepted any more: the next refused request must not restore
    it.
    """
    rows = db.execute(
        "SELECT source, requested, reason, message, requested_by, requested_at FROM request"
        " WHERE instance_uuid = ?",
        (instance_uuid,),
    ).fetchall()
    now = time.time()
    none = (Source.OPERATOR, _EMPTY, "", "", by, now)
    source, requested, reason, message, requested_by, requested_at = max(
        rows, key=lambda row: rank(row[0]), default=none
    )
    status = Status.REFUSED if requested is None else Status.PENDING
    generations = db.execute(
        "INSERT INTO instance (instance_uuid, requested, generation, status, reason, message,"
        " changed_at, source) VALUES (?, ?, 1, ?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET requested = excluded.requested, generation = generation + 1,"
        " status = excluded.status, reason = excluded.reason, message = excluded.message,"
        " changed_at = excluded.changed_at, source = excluded.source,"
        " accepted = CASE WHEN excluded.requested = '{}' THEN NULL ELSE accepted END"
        " WHERE requested IS NOT excluded.requested OR source != excluded.source"
        " OR requested IS NULL AND message != excluded.message RETURNING generation",
        (instance_uuid, requested, status, reason, message, now, source),
    ).fetchall()
    for (generation,) in generations:
        origin = (requested_at, source, by or requested_by, requested)
        outcome = (status, reason, message, now)
        history.add(db, instance_uuid, generation, *origin, *outcome)
    return bool(generations)


def restore(db: sqlite3.Connection, instance_uuid: str, by: str) -> bool:
    """Update the desired allocation if it can't be read; return whether it changes."""
    found = db.execute("SELECT requested FROM instance WHERE instance_uuid = ?", (instance_uuid,))
    bad = any(isinstance(stored.load(requested), Unreadable) for (requested,) in found.fetchall())
    return bad and update_desired(db, instance_uuid, by)


def withdraw_unreadable(db: sqlite3.Connection, instance_uuid: str, by: str) -> bool:
    """Delete the requests that can't be read; return whether anything changes."""
    found = db.execute(
        "SELECT source, requested FROM request WHERE instance_uuid = ?", (instance_uuid,)
    ).fetchall()
    bad = [source for source, requested in found if isinstance(stored.load(requested), Unreadable)]
    db.executemany(
        "DELETE FROM request WHERE instance_uuid = ? AND source = ?",
        [(instance_uuid, source) for source in bad],
    )
    return (update_desired if bad else restore)(
        db, instance_uuid, f"deleted as unreadable by {by}"
    ) or bool(bad)
