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

"""Where Nova reports instances, in the store: kept unless it is simply "here"."""

from __future__ import annotations

import sqlite3
from typing import Any

from kongming.allocation import stored
from kongming.executor.store.residence import Hint, Place
from kongming.runtime.sqlite import Database


class Hints:
    """The last hint about each instance with a record. Any thread may call any method.

    Every method raises ``StoreUnavailable`` if the database can't be used.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, instance_uuid: str) -> Hint | None:
        """Return Nova's last report; None without one, or if the instance is here."""
        rows = self._db.query(
            "SELECT place, host, reported_by, reported_at, uncertain, from_api FROM hint"
            " WHERE instance_uuid = ?",
            (instance_uuid,),
        )
        return _read(*rows[0]) if rows else None

    def elsewhere(self) -> set[str]:
        """Return the instances that Nova reports elsewhere or nowhere."""
        rows = self._db.query(
            "SELECT instance_uuid FROM hint WHERE place != 'here' AND NOT uncertain"
        )
        return {instance_uuid for (instance_uuid,) in rows}

    def save(self, instance_uuid: str, hint: Hint) -> bool:
        """Save a hint; it is on disk on return.

        :returns: whether it differs from the former one.
        """
        plain = hint.place is Place.HERE and not hint.uncertain
        with self._db.lock:
            before = self.get(instance_uuid)
            again = hint.agrees_with(before)
            if before is None and plain:
                return False
            if before is not None and again and (before.from_api or not hint.from_api):
                return False
            reported_at = before.reported_at if before is not None and again else hint.reported_at
            with self._db.transaction(durable=True) as db:
                drop(db, instance_uuid)
                if not plain:
                    row = (hint.place, hint.host, hint.reported_by, reported_at)
                    db.execute(
                        "INSERT INTO hint VALUES (?, ?, ?, ?, ?, ?, ?)",
                        (instance_uuid, *row, hint.uncertain, hint.from_api),
                    )
        return True

    def clear(self) -> None:
        """Delete all hints, because Nova is not used here any more."""
        with self._db.transaction(durable=True) as db:
            db.execute("DELETE FROM hint")


def drop(db: sqlite3.Connection, instance_uuid: str) -> None:
    """Delete the hint about an instance, within a transaction."""
    db.execute("DELETE FROM hint WHERE instance_uuid = ?", (instance_uuid,))


def _read(
    place: Any, host: Any, reported_by: Any, reported_at: Any, uncertain: Any, from_api: Any
) -> Hint | None:
    try:
        known = Place(place)
    except ValueError:
        # Edited by hand, or written by another version: as if there were no report.
        return None
    report = (stored.text(host), stored.text(reported_by), stored.moment(reported_at))
    return Hint(known, *report, bool(uncertain), bool(from_api))
