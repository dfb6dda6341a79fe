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

One SQLite database under the state path, which the service and the
operator's tools work on at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass
import enum
import json
from pathlib import Path
import sqlite3
import time
from typing import Any

from kongming import exception
from kongming.allocation import Allocation
from kongming.executor.database import Database
from kongming.executor.request import Request, Source

FILE_NAME = "allocations.sqlite"

_MIGRATIONS = (
    (
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
    ),
    (
        "ALTER TABLE instance ADD COLUMN source TEXT NOT NULL DEFAULT 'metadata'",
        "ALTER TABLE instance ADD COLUMN drift TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE instance ADD COLUMN drift_at REAL",
        """
        CREATE TABLE request (
            instance_uuid TEXT NOT NULL,
            source TEXT NOT NULL,
            asked TEXT,
            reason TEXT NOT NULL,
            message TEXT NOT NULL,
            asked_by TEXT NOT NULL,
            asked_at REAL NOT NULL,
            PRIMARY KEY (instance_uuid, source)
        ) WITHOUT ROWID
        """,
        """
        INSERT INTO request SELECT instance_uuid, 'metadata', asked,
            iif(asked IS NULL, reason, ''), iif(asked IS NULL, message, ''), '', changed_at
            FROM instance
        """,
        """
        CREATE TABLE history (
            id INTEGER PRIMARY KEY,
            instance_uuid TEXT NOT NULL,
            generation INTEGER NOT NULL,
            asked_at REAL,
            source TEXT NOT NULL,
            asked_by TEXT NOT NULL,
            asked TEXT,
            status TEXT NOT NULL,
            reason TEXT NOT NULL,
            message TEXT NOT NULL,
            changed_at REAL NOT NULL
        )
        """,
        "CREATE INDEX history_of_instance ON history (instance_uuid, id)",
        "CREATE INDEX history_by_time ON history (changed_at)",
    ),
)

#: The version of the schema that this Kongming works with.
SCHEMA_VERSION = len(_MIGRATIONS)

_NOTHING = "{}"


class Status(enum.StrEnum):
    """How far what was asked has come.

    RELEASED is only found in the history: nothing is kept any more.
    """

    PENDING = "pending"
    APPLIED = "applied"
    DRIFTED = "drifted"
    REFUSED = "refused"
    FAILED = "failed"
    ABSENT = "absent"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Record:
    """All that is known of one instance.

    :ivar asked: what is asked; None if it can't be read.
    :ivar accepted: what last was in force on the guest; None if nothing was.
    :ivar generation: grows with each change of ``asked``.
    :ivar reason: reason code of a refusal, failure or drift; empty otherwise.
    :ivar changed_at: when the status changed, in seconds since the epoch.
    :ivar source: whose request this is.
    :ivar drift: what was last found to be other than wanted; empty if never.
    :ivar drift_at: when, in seconds since the epoch.
    """

    instance_uuid: str
    asked: Allocation | None
    accepted: Allocation | None
    generation: int
    status: Status
    reason: str
    message: str
    changed_at: float
    source: Source
    drift: str
    drift_at: float | None


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of an instance's history: what was asked, and what came of it.

    Times are in seconds since the epoch.
    """

    asked_at: float | None
    source: Source
    asked_by: str
    asked: Allocation | None
    status: Status
    reason: str
    message: str
    changed_at: float


class Store:
    """The database of one host. Any thread may call any method.

    Every method raises ``StoreUnavailable`` if the database can't be used.
    """

    def __init__(self, state_path: Path, *, create: bool = True) -> None:
        """Open the database in the directory ``state_path``.

        :param create: whether to make it if there is none.
        """
        self._held: frozenset[str] = frozenset()
        self._db = Database(
            state_path / FILE_NAME, _MIGRATIONS, create=create, on_open=self._read_held
        )

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def held(self) -> frozenset[str]:
        """Give the UUIDs of all instances that anything is known of."""
        return self._held

    def holds(self, instance_uuid: str) -> bool:
        """Tell whether anything is known of an instance; costs nothing."""
        return instance_uuid in self._held

    def get(self, instance_uuid: str) -> Record | None:
        """Read what is known of an instance."""
        rows = self._db.query(f"{_SELECT} WHERE instance_uuid = ?", (instance_uuid,))
        return _record(*rows[0]) if rows else None

    def records(self) -> list[Record]:
        """Read what is known of all instances."""
        return [_record(*row) for row in self._db.query(f"{_SELECT} ORDER BY instance_uuid")]

    def requests(self, instance_uuid: str) -> list[Request]:
        """Read what is asked for an instance, by whom; the last word last."""
        rows = self._db.query(
            "SELECT source, asked, message, asked_by, asked_at FROM request"
            " WHERE instance_uuid = ?",
            (instance_uuid,),
        )
        return sorted((_request(*row) for row in rows), key=_rank)

    def ask(self, instance_uuid: str, request: Request) -> bool:
        """Keep what is asked for an instance; it is on disk on return.

        :returns: whether it changes what is wanted.
        """
        refusal = request.asked if isinstance(request.asked, exception.Refused) else None
        asked = None if isinstance(request.asked, exception.Refused) else _dump(request.asked)
        reason, message = _said(refusal)
        with self._db.lock:
            with self._db.transaction(durable=True) as db:
                new = db.execute(
                    "INSERT INTO request VALUES (?, ?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT DO UPDATE SET asked = excluded.asked, reason = excluded.reason,"
                    " message = excluded.message, asked_by = excluded.asked_by,"
                    " asked_at = excluded.asked_at"
                    " WHERE asked IS NOT excluded.asked OR message != excluded.message",
                    (
                        instance_uuid,
                        request.source,
                        asked,
                        reason,
                        message,
                        request.asked_by,
                        request.asked_at,
                    ),
                ).rowcount
                changed = bool(new) and self._decide(db, instance_uuid)
            if changed:
                self._held |= {instance_uuid}
        return changed

    def withdraw(self, instance_uuid: str, source: Source, asked_by: str) -> bool:
        """Take back what a source asked; that of the others counts again.

        :returns: whether it had asked anything.
        """
        with self._db.lock:
            with self._db.transaction(durable=True) as db:
                known = db.execute(
                    "DELETE FROM request WHERE instance_uuid = ? AND source = ?",
                    (instance_uuid, source),
                ).rowcount
                if known:
                    self._decide(db, instance_uuid, f"withdrawn by {asked_by}")
            if known:
                self._held |= {instance_uuid}
        return bool(known)

    def release(self, instance_uuid: str, asked_by: str) -> None:
        """Have a guest that nothing is known of go back to its baseline."""
        with self._db.lock:
            with self._db.transaction(durable=True) as db:
                self._decide(db, instance_uuid, f"released by {asked_by}")
            self._held |= {instance_uuid}

    def report(
        self,
        record: Record,
        status: Status,
        error: exception.KongmingError | None = None,
        *,
        accepted: Allocation | None = None,
        note: str = "",
        drift: exception.Drifted | None = None,
    ) -> bool:
        """Keep the outcome of working on ``record``.

        It is dropped if something else was asked meanwhile, but for what is
        in force.

        :param accepted: what is in force now; None leaves it as it was.
        :param note: what there is to say of a success.
        :param drift: what was found to be other than wanted.
        :returns: whether the outcome is anything new.
        """
        reason, message = _said(error)
        message = message or note
        if not note and error is None and status is record.status:
            message = record.message
        same = (record.status, record.reason, record.message) == (status, reason, message)
        if same and drift is None and (accepted is None or accepted == record.accepted):
            return False
        now = time.time()
        with self._db.transaction(durable=False) as db:
            changed = db.execute(
                "UPDATE instance SET status = ?, reason = ?, message = ?, changed_at = ?,"
                " accepted = coalesce(?, accepted), drift = coalesce(?, drift),"
                " drift_at = coalesce(?, drift_at) WHERE instance_uuid = ? AND generation = ?",
                (
                    status,
                    reason,
                    message,
                    now if not same else record.changed_at,
                    None if accepted is None else _dump(accepted),
                    None if drift is None else str(drift),
                    None if drift is None else now,
                    record.instance_uuid,
                    record.generation,
                ),
            ).rowcount
            if not changed and accepted is not None:
                # It is in force all the same: a later refusal leaves it so.
                db.execute(
                    "UPDATE instance SET accepted = ? WHERE instance_uuid = ?",
                    (_dump(accepted), record.instance_uuid),
                )
            if changed:
                said = (reason, message) if drift is None else _said(drift)
                _complete(db, record, status, *said, now)
        return bool(changed)

    def demand(self, instance_uuid: str) -> bool:
        """Have an instance looked at by the service, as if it were new.

        :returns: whether anything is known of it.
        """
        with self._db.transaction(durable=True) as db:
            return bool(
                db.execute(
                    "UPDATE instance SET status = ?, reason = '', changed_at = ?"
                    " WHERE instance_uuid = ?",
                    (Status.PENDING, time.time(), instance_uuid),
                ).rowcount
            )

    def pending_elsewhere(self) -> list[str]:
        """Give what others left to be looked at since this was last asked."""
        if not self._db.changed_elsewhere():
            return []
        rows = self._db.query("SELECT instance_uuid, status FROM instance")
        self._held = frozenset(uuid for uuid, _ in rows)
        return [uuid for uuid, status in rows if status == Status.PENDING]

    def forget(self, instance_uuid: str, why: str, *, generation: int | None = None) -> bool:
        """Forget an instance, but for its history.

        :param generation: forget it only if nothing was asked since then.
        :returns: whether it was there to be forgotten.
        """
        with self._db.lock:
            with self._db.transaction(durable=True) as db:
                gone = db.execute(
                    "DELETE FROM instance WHERE instance_uuid = ?1"
                    " AND generation = coalesce(?2, generation)"
                    " RETURNING generation, source, asked",
                    (instance_uuid, generation),
                ).fetchall()
                for of, source, asked in gone:
                    db.execute("DELETE FROM request WHERE instance_uuid = ?", (instance_uuid,))
                    said = (Status.RELEASED, "", why, time.time())
                    _remember(db, instance_uuid, of, None, source, "", asked, *said)
            if gone:
                self._held -= {instance_uuid}
        return bool(gone)

    def history(self, instance_uuid: str) -> list[Change]:
        """Read an instance's history, the oldest entry first."""
        rows = self._db.query(
            "SELECT asked_at, source, asked_by, asked, status, reason, message, changed_at"
            " FROM history WHERE instance_uuid = ? ORDER BY id",
            (instance_uuid,),
        )
        return [
            Change(at, Source(source), by, _load(asked), Status(status), *rest)
            for at, source, by, asked, status, *rest in rows
        ]

    def purge(self, before: float) -> int:
        """Forget the history of before a time; give how many entries that were."""
        with self._db.transaction(durable=False) as db:
            return db.execute("DELETE FROM history WHERE changed_at < ?", (before,)).rowcount

    def _read_held(self, db: sqlite3.Connection) -> None:
        rows = db.execute("SELECT instance_uuid FROM instance")
        self._held = frozenset(uuid for (uuid,) in rows)

    def _decide(self, db: sqlite3.Connection, instance_uuid: str, by: str = "") -> bool:
        """Make the request that has the last word what is wanted."""
        rows = db.execute(
            "SELECT source, asked, reason, message, asked_by, asked_at FROM request"
            " WHERE instance_uuid = ?",
            (instance_uuid,),
        ).fetchall()
        now = time.time()
        nobody = (Source.OPERATOR, _NOTHING, "", "", by, now)
        source, asked, reason, message, asked_by, asked_at = max(
            rows, key=lambda row: _ORDER.index(row[0]), default=nobody
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
            _remember(db, instance_uuid, generation, *asked_for, *said)
        return bool(generations)


_ORDER = list(Source)

_SELECT = (
    "SELECT instance_uuid, asked, accepted, generation, status, reason, message, changed_at,"
    " source, drift, drift_at FROM instance"
)


def _complete(
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
        asked = None if record.asked is None else _dump(record.asked)
        _remember(db, *of, None, record.source, "", asked, status, reason, message, now)


def _remember(db: sqlite3.Connection, *entry: object) -> None:
    """Add an entry to the history; ``entry`` is all of its columns."""
    db.execute(
        "INSERT INTO history (instance_uuid, generation, asked_at, source, asked_by, asked,"
        " status, reason, message, changed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        entry,
    )


def _said(error: exception.KongmingError | None) -> tuple[str, str]:
    return ("", "") if error is None else (error.reason, str(error))


def _rank(request: Request) -> int:
    return _ORDER.index(request.source)


def _dump(allocation: Allocation) -> str:
    return json.dumps(allocation.to_json(), sort_keys=True)


def _load(text: str | None) -> Allocation | None:
    return None if text is None else Allocation.from_json(json.loads(text))


def _request(
    source: str, asked: str | None, message: str, asked_by: str, asked_at: float
) -> Request:
    allocation = _load(asked)
    refused = exception.RequestInvalid(message)
    return Request(
        Source(source), refused if allocation is None else allocation, asked_by, asked_at
    )


def _record(
    instance_uuid: str, asked: str | None, accepted: str | None, generation: int, *rest: Any
) -> Record:
    status, reason, message, changed_at, source, drift, drift_at = rest
    return Record(
        instance_uuid,
        _load(asked),
        _load(accepted),
        generation,
        Status(status),
        reason,
        message,
        changed_at,
        Source(source),
        drift,
        drift_at,
    )
