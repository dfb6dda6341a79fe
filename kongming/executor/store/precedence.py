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

"""Which of an instance's requests counts: the one with the last word is what is wanted."""

from __future__ import annotations

import sqlite3
import time

from kongming import exception
from kongming.allocation import stored
from kongming.allocation.request import Request, Source
from kongming.allocation.statuses import Status
from kongming.allocation.stored import Unreadable
from kongming.executor.store import history
from kongming.executor.store.record import dump, kept, said_of

_ORDER = [*Source]
_NOTHING = "{}"


def rank(source: object) -> int:
    """Return a source's place among those of which the last has the last word."""
    # Another version may know more of them than this one.
    return _ORDER.index(source) if source in _ORDER else -1


def keep(db: sqlite3.Connection, instance_uuid: str, request: Request) -> bool:
    """Keep a request in the place of its source's former one; tell whether it is another."""
    refusal = request.asked if isinstance(request.asked, exception.Refused) else None
    return bool(
        db.execute(
            "INSERT INTO request VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET asked = excluded.asked, reason = excluded.reason,"
            " message = excluded.message, asked_by = excluded.asked_by,"
            " asked_at = excluded.asked_at, generation = excluded.generation"
            " WHERE asked IS NOT excluded.asked OR message != excluded.message"
            " OR generation != excluded.generation",
            (
                instance_uuid,
                request.source,
                None if isinstance(request.asked, exception.Refused) else dump(request.asked),
                *said_of(refusal),
                kept(request.asked_by),
                request.asked_at,
                request.generation,
            ),
        ).rowcount
    )


def decide(db: sqlite3.Connection, instance_uuid: str, by: str = "") -> bool:
    """Make the request that has the last word what is wanted.

    Where nothing is requested, nothing is in force any more: what is refused next must not
    bring it back.
    """
    rows = db.execute(
        "SELECT source, asked, reason, message, asked_by, asked_at FROM request"
        " WHERE instance_uuid = ?",
        (instance_uuid,),
    ).fetchall()
    now = time.time()
    nobody = (Source.OPERATOR, _NOTHING, "", "", by, now)
    source, asked, reason, message, asked_by, asked_at = max(
        rows, key=lambda row: rank(row[0]), default=nobody
    )
    status = Status.REFUSED if asked is None else Status.PENDING
    generations = db.execute(
        "INSERT INTO instance (instance_uuid, asked, generation, status, reason, message,"
        " changed_at, source) VALUES (?, ?, 1, ?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET asked = excluded.asked, generation = generation + 1,"
        " status = excluded.status, reason = excluded.reason, message = excluded.message,"
        " changed_at = excluded.changed_at, source = excluded.source,"
        " accepted = CASE WHEN excluded.asked = '{}' THEN NULL ELSE accepted END"
        " WHERE asked IS NOT excluded.asked OR source != excluded.source"
        " OR asked IS NULL AND message != excluded.message RETURNING generation",
        (instance_uuid, asked, status, reason, message, now, source),
    ).fetchall()
    for (generation,) in generations:
        asked_for = (asked_at, source, by or asked_by, asked)
        said = (status, reason, message, now)
        history.remember(db, instance_uuid, generation, *asked_for, *said)
    return bool(generations)


def restore(db: sqlite3.Connection, instance_uuid: str, by: str) -> bool:
    """Decide anew if what is wanted can't be read; tell whether the requests say otherwise."""
    found = db.execute("SELECT asked FROM instance WHERE instance_uuid = ?", (instance_uuid,))
    bad = any(isinstance(stored.load(asked), Unreadable) for (asked,) in found.fetchall())
    return bad and decide(db, instance_uuid, by)


def withdraw_unreadable(db: sqlite3.Connection, instance_uuid: str, by: str) -> bool:
    """Delete the requests that can't be read; tell whether there were any, or that helps."""
    found = db.execute(
        "SELECT source, asked FROM request WHERE instance_uuid = ?", (instance_uuid,)
    ).fetchall()
    bad = [source for source, asked in found if isinstance(stored.load(asked), Unreadable)]
    db.executemany(
        "DELETE FROM request WHERE instance_uuid = ? AND source = ?",
        [(instance_uuid, source) for source in bad],
    )
    return (decide if bad else restore)(
        db, instance_uuid, f"deleted as unreadable by {by}"
    ) or bool(bad)
