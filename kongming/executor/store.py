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

import logging
from pathlib import Path
import sqlite3
import time
from typing import Any

from kongming import exception
from kongming.allocation import Allocation
from kongming.executor.database import Database
from kongming.executor.record import Change, Record, Status, dump, load, read_record
from kongming.executor.request import Request, Source
from kongming.executor.schema import MIGRATIONS

LOG = logging.getLogger(__name__)

FILE_NAME = "allocations.sqlite"

#: So many entries are kept of each instance, the latest ones.
HISTORY_MAX = 1_000

_NOTHING = "{}"


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
            state_path / FILE_NAME, MIGRATIONS, create=create, on_open=self._read_held
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
        return self._read(rows[0]) if rows else None

    def records(self) -> list[Record]:
        """Read what is known of all instances."""
        return [self._read(row) for row in self._db.query(f"{_SELECT} ORDER BY instance_uuid")]

    def requests(self, instance_uuid: str) -> list[Request]:
        """Read what is asked for an instance, by whom; the last word last."""
        rows = self._db.query(
            "SELECT source, asked, message, asked_by, asked_at, generation FROM request"
            " WHERE instance_uuid = ?",
            (instance_uuid,),
        )
        return sorted((_request(*row) for row in rows), key=_rank)

    def asked_by(self, source: Source) -> dict[str, tuple[int, Record]]:
        """Read what a source asks, and how far that has come.

        :returns: for each instance the generation that the source gave its
            request, and all that is known of the instance.
        """
        with self._db.lock:
            records = self._db.query(
                f"{_SELECT} JOIN request USING (instance_uuid) WHERE request.source = ?", (source,)
            )
            generations = dict(
                self._db.query(
                    "SELECT instance_uuid, generation FROM request WHERE source = ?", (source,)
                )
            )
        return {row[0]: (generations[row[0]], self._read(row)) for row in records}

    def returning(self) -> set[str]:
        """Give the instances that nobody asks anything for, still to be at their baseline."""
        rows = self._db.query(f"{_NOBODY_ASKS} AND status != ?", (Status.ABSENT,))
        return {instance_uuid for (instance_uuid,) in rows}

    def ask(self, instance_uuid: str, request: Request) -> bool:
        """Keep what is asked for an instance; it is on disk on return.

        :returns: whether it changes what is wanted.
        """
        refusal = request.asked if isinstance(request.asked, exception.Refused) else None
        asked = None if isinstance(request.asked, exception.Refused) else dump(request.asked)
        reason, message = _said(refusal)
        with self._db.lock:
            with self._db.transaction(durable=True) as db:
                new = db.execute(
                    "INSERT INTO request VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT DO UPDATE SET asked = excluded.asked, reason = excluded.reason,"
                    " message = excluded.message, asked_by = excluded.asked_by,"
                    " asked_at = excluded.asked_at, generation = excluded.generation"
                    " WHERE asked IS NOT excluded.asked OR message != excluded.message"
                    " OR generation != excluded.generation",
                    (
                        instance_uuid,
                        request.source,
                        asked,
                        reason,
                        message,
                        request.asked_by,
                        request.asked_at,
                        request.generation,
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
                    None if accepted is None else dump(accepted),
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
                    (dump(accepted), record.instance_uuid),
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
            Change(at, Source(source), by, load(asked), Status(status), *rest)
            for at, source, by, asked, status, *rest in rows
        ]

    def purge(self, before: float) -> int:
        """Forget the history of before a time; give how many entries that were.

        With it goes what is kept of guests that were to be returned to their
        baseline and never came back.
        """
        left = [uuid for uuid in self._left_before(before) if self.forget(uuid, "never came back")]
        if left:
            LOG.info("Forgotten, as they never came back: %s", ", ".join(left))
        with self._db.transaction(durable=False) as db:
            return db.execute("DELETE FROM history WHERE changed_at < ?", (before,)).rowcount

    def _left_before(self, before: float) -> list[str]:
        rows = self._db.query(
            f"{_NOBODY_ASKS} AND status = ? AND changed_at < ?", (Status.ABSENT, before)
        )
        return [instance_uuid for (instance_uuid,) in rows]

    def _read(self, row: tuple[Any, ...]) -> Record:
        try:
            return read_record(*row)
        except (ValueError, KeyError, TypeError, AttributeError, exception.Refused) as error:
            raise exception.StoreUnavailable(
                f"{self._db.path}: what is kept of instance {row[0]} can't be read "
                f"({type(error).__name__}): was it edited? Delete that row of the table instance"
            ) from error

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

_NOBODY_ASKS = (
    "SELECT instance_uuid FROM instance WHERE NOT EXISTS"
    " (SELECT 1 FROM request WHERE request.instance_uuid = instance.instance_uuid)"
)

_SELECT = (
    "SELECT instance.instance_uuid, instance.asked, instance.accepted, instance.generation,"
    " instance.status, instance.reason, instance.message, instance.changed_at, instance.source,"
    " instance.drift, instance.drift_at FROM instance"
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
        asked = None if record.asked is None else dump(record.asked)
        _remember(db, *of, None, record.source, "", asked, status, reason, message, now)


def _remember(db: sqlite3.Connection, instance_uuid: str, *entry: object) -> None:
    """Add an entry to the history, and forget those that are too many.

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
        (instance_uuid, HISTORY_MAX),
    )


def _said(error: exception.KongmingError | None) -> tuple[str, str]:
    return ("", "") if error is None else (error.reason, str(error))


def _rank(request: Request) -> int:
    return _ORDER.index(request.source)


def _request(
    source: str,
    asked: str | None,
    message: str,
    asked_by: str,
    asked_at: float,
    generation: int,
) -> Request:
    allocation = load(asked)
    refused = exception.RequestInvalid(message)
    return Request(
        Source(source),
        refused if allocation is None else allocation,
        asked_by,
        asked_at,
        generation,
    )
