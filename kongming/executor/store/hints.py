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

"""Where Nova says that instances are, in the store: kept unless it is simply "here"."""

from __future__ import annotations

import sqlite3
from typing import Any

from kongming.allocation import stored
from kongming.executor.store.residence import Hint, Place
from kongming.runtime.sqlite import Database


class Hints:
    """The last hint on each instance that anything is kept of. Any thread may call any method.

    Every method raises ``StoreUnavailable`` if the database can't be used.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, instance_uuid: str) -> Hint | None:
        """Return what Nova last said; None if it said that the instance is here, or nothing."""
        rows = self._db.query(
            "SELECT place, host, said_by, said_at, doubtful, answered FROM hint"
            " WHERE instance_uuid = ?",
            (instance_uuid,),
        )
        return _read(*rows[0]) if rows else None

    def astray(self) -> set[str]:
        """Return the instances of which Nova says that they are not here."""
        rows = self._db.query(
            "SELECT instance_uuid FROM hint WHERE place != 'here' AND NOT doubtful"
        )
        return {instance_uuid for (instance_uuid,) in rows}

    def keep(self, instance_uuid: str, hint: Hint) -> bool:
        """Keep a hint; it is on disk on return.

        :returns: whether it says anything new.
        """
        plain = hint.place is Place.HERE and not hint.doubtful
        with self._db.lock:
            before = self.get(instance_uuid)
            again = hint.says_the_same(before)
            if before is None and plain:
                return False
            if before is not None and again and (before.answered or not hint.answered):
                return False
            said_at = before.said_at if before is not None and again else hint.said_at
            with self._db.transaction(durable=True) as db:
                drop(db, instance_uuid)
                if not plain:
                    row = (hint.place, hint.host, hint.said_by, said_at)
                    db.execute(
                        "INSERT INTO hint VALUES (?, ?, ?, ?, ?, ?, ?)",
                        (instance_uuid, *row, hint.doubtful, hint.answered),
                    )
        return True

    def clear(self) -> None:
        """Forget all hints: nobody asks Nova here any more."""
        with self._db.transaction(durable=True) as db:
            db.execute("DELETE FROM hint")


def drop(db: sqlite3.Connection, instance_uuid: str) -> None:
    """Forget the hint on an instance, within a transaction."""
    db.execute("DELETE FROM hint WHERE instance_uuid = ?", (instance_uuid,))


def _read(
    place: Any, host: Any, said_by: Any, said_at: Any, doubtful: Any, answered: Any
) -> Hint | None:
    try:
        known = Place(place)
    except ValueError:
        # Edited by hand, or written by another version: as if nothing had been said.
        return None
    said = (stored.text(host), stored.text(said_by), stored.moment(said_at))
    return Hint(known, *said, bool(doubtful), bool(answered))
