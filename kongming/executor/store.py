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

"""What is wanted for each instance, on disk: it outlives every crash.

One SQLite database under the state path, also read by the operator's tools.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import enum
import json
from pathlib import Path
import sqlite3
import threading
import time
from typing import Any

from kongming import exception
from kongming.allocation import Allocation

FILE_NAME = "allocations.sqlite"

_BUSY_TIMEOUT_S = 5.0

# The steps from one version of the schema to the next; PRAGMA user_version
# holds the number of those taken.
_MIGRATIONS = (
    """
    CREATE TABLE instance (
        instance_uuid TEXT PRIMARY KEY,
        asked TEXT,
        accepted TEXT,
        generation INTEGER NOT NULL,
        status TEXT NOT NULL,
        reason TEXT NOT NULL,
        message TEXT NOT NULL,
        changed_at REAL NOT NULL
    ) WITHOUT ROWID
    """,
)


class Status(enum.StrEnum):
    """How far what was asked has come."""

    PENDING = "pending"
    APPLIED = "applied"
    REFUSED = "refused"
    FAILED = "failed"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Record:
    """All that is known of one instance.

    :ivar asked: what is asked; None if it can't be read.
    :ivar accepted: what last was in force on the guest; None if nothing was.
    :ivar generation: grows with each change of ``asked``.
    :ivar reason: reason code of a refusal or failure; empty otherwise.
    :ivar changed_at: when the status changed, in seconds since the epoch.
    """

    instance_uuid: str
    asked: Allocation | None
    accepted: Allocation | None
    generation: int
    status: Status
    reason: str
    message: str
    changed_at: float


class Store:
    """The database of one host. Any thread may call any method.

    Every method raises ``StoreUnavailable`` if the database can't be used.
    """

    def __init__(self, state_path: Path) -> None:
        """Open the database in the directory ``state_path``; make it if need be."""
        self._path = state_path / FILE_NAME
        self._lock = threading.RLock()
        with self._translated():
            self._db = sqlite3.connect(
                self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode = WAL")
        with self._transaction(durable=True) as db:
            _migrate(db, self._path)
            self._held = {uuid for (uuid,) in db.execute("SELECT instance_uuid FROM instance")}

    def close(self) -> None:
        """Close the database; nothing may be called afterwards."""
        with self._lock:
            self._db.close()

    def held(self) -> frozenset[str]:
        """Give the UUIDs of all instances that anything is known of."""
        return frozenset(self._held)

    def holds(self, instance_uuid: str) -> bool:
        """Tell whether anything is known of an instance; costs nothing."""
        return instance_uuid in self._held

    def get(self, instance_uuid: str) -> Record | None:
        """Read what is known of an instance."""
        with self._lock, self._translated():
            row = self._db.execute(
                "SELECT instance_uuid, asked, accepted, generation, status, reason, message,"
                " changed_at FROM instance WHERE instance_uuid = ?",
                (instance_uuid,),
            ).fetchone()
        return None if row is None else _record(*row)

    def ask(self, instance_uuid: str, allocation: Allocation) -> bool:
        """Keep what is asked for an instance; it is on disk on return.

        :returns: whether that is anything new.
        """
        asked = _dump(allocation)
        with self._transaction(durable=True) as db:
            self._held.add(instance_uuid)
            changed = db.execute(
                "INSERT INTO instance VALUES (?, ?, NULL, 1, ?, '', '', ?)"
                " ON CONFLICT (instance_uuid) DO UPDATE SET asked = excluded.asked,"
                " generation = generation + 1, status = excluded.status, reason = '',"
                " message = '', changed_at = excluded.changed_at"
                " WHERE asked IS NOT excluded.asked",
                (instance_uuid, asked, Status.PENDING, time.time()),
            ).rowcount
        return bool(changed)

    def refuse(self, instance_uuid: str, refusal: exception.Refused) -> bool:
        """Keep that what is asked can't be read; what is in force stays.

        :returns: whether that is anything new.
        """
        with self._transaction(durable=True) as db:
            self._held.add(instance_uuid)
            changed = db.execute(
                "INSERT INTO instance VALUES (?, NULL, NULL, 1, ?, ?, ?, ?)"
                " ON CONFLICT (instance_uuid) DO UPDATE SET asked = NULL,"
                " generation = generation + 1, status = excluded.status,"
                " reason = excluded.reason, message = excluded.message,"
                " changed_at = excluded.changed_at"
                " WHERE asked IS NOT NULL OR message != excluded.message",
                (instance_uuid, Status.REFUSED, refusal.reason, str(refusal), time.time()),
            ).rowcount
        return bool(changed)

    def report(
        self,
        record: Record,
        status: Status,
        error: exception.KongmingError | None = None,
        *,
        accepted: Allocation | None = None,
    ) -> bool:
        """Keep the outcome of working on ``record``.

        It is dropped if something else was asked meanwhile.

        :param accepted: what is in force now; None leaves it as it was.
        :returns: whether the outcome is anything new.
        """
        reason, message = ("", "") if error is None else (error.reason, str(error))
        accepted_json = None if accepted is None else _dump(accepted)
        if (record.status, record.reason, record.message) == (status, reason, message) and (
            accepted is None or accepted == record.accepted
        ):
            return False
        with self._transaction(durable=False) as db:
            changed = db.execute(
                "UPDATE instance SET status = ?, reason = ?, message = ?, changed_at = ?,"
                " accepted = coalesce(?, accepted) WHERE instance_uuid = ? AND generation = ?",
                (
                    status,
                    reason,
                    message,
                    time.time(),
                    accepted_json,
                    record.instance_uuid,
                    record.generation,
                ),
            ).rowcount
        return bool(changed)

    def forget(self, instance_uuid: str, *, generation: int | None = None) -> bool:
        """Forget an instance.

        :param generation: forget it only if nothing was asked since then.
        :returns: whether it was there to be forgotten.
        """
        with self._lock:
            with self._transaction(durable=True) as db:
                changed = db.execute(
                    "DELETE FROM instance WHERE instance_uuid = ?1"
                    " AND generation = coalesce(?2, generation)",
                    (instance_uuid, generation),
                ).rowcount
            if changed:
                self._held.discard(instance_uuid)
        return bool(changed)

    @contextmanager
    def _transaction(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        """All or nothing; a durable one survives a power failure too.

        What is asked must, once its event is acknowledged. An outcome need
        not: it is simply found out again.
        """
        with self._lock, self._translated():
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise exception.StoreUnavailable(
                f"{self._path}: {error}; check that the directory is writable, its disk not full "
                "and the file not damaged (if it is, move it away: what the instances' metadata "
                "asks for comes back with their next events)"
            ) from error


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(_MIGRATIONS):
        raise exception.StoreUnavailable(
            f"{path} was written by a newer Kongming (schema {version}, this one knows "
            f"{len(_MIGRATIONS)}): install that version again"
        )
    for step in _MIGRATIONS[version:]:
        db.execute(step)
    db.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")


def _dump(allocation: Allocation) -> str:
    return json.dumps(allocation.to_json(), sort_keys=True)


def _load(text: str | None) -> Allocation | None:
    return None if text is None else Allocation.from_json(json.loads(text))


def _record(
    instance_uuid: str, asked: str | None, accepted: str | None, generation: int, *rest: Any
) -> Record:
    status, reason, message, changed_at = rest
    return Record(
        instance_uuid,
        _load(asked),
        _load(accepted),
        generation,
        Status(status),
        reason,
        message,
        changed_at,
    )
