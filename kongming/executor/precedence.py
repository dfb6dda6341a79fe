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

from kongming import stored
from kongming.executor import history
from kongming.executor.record import Status
from kongming.executor.request import Source
from kongming.stored import Unreadable

_ORDER = [*Source]
_NOTHING = "{}"


def rank(source: object) -> int:
    """Return a source's place among those of which the last has the last word."""
    # Another version may know more of them than this one.
    return _ORDER.index(source) if source in _ORDER else -1


def decide(db: sqlite3.Connection, instance_uuid: str, by: str = "") -> bool:
    """Make the request that has the last word what is wanted."""
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
        " changed_at = excluded.changed_at, source = excluded.source"
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
