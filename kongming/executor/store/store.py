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

from kongming import exception
from kongming.allocation import stored
from kongming.allocation.allocation import Allocation
from kongming.allocation.cpuset import shown
from kongming.allocation.request import Request, Source
from kongming.allocation.statuses import Status
from kongming.allocation.stored import is_instance
from kongming.executor.store import hints, history, precedence
from kongming.executor.store.record import (
    Change,
    Record,
    dump,
    kept,
    read_record,
    read_request,
    said_of,
)
from kongming.executor.store.residence import Hint
from kongming.executor.store.schema import MIGRATIONS
from kongming.runtime.sqlite import Database

LOG = logging.getLogger(__name__)

FILE_NAME = "allocations.sqlite"


class Store:
    """The database of one host. Any thread may call any method.

    Every method raises ``StoreUnavailable`` if the database can't be used.

    :ivar hints: where Nova says that the instances are.
    :ivar identity: another one for each store: one that was made anew after a loss
        does not know what the one before it did.
    """

    def __init__(self, state_path: Path, *, create: bool = True) -> None:
        """Open the database in the directory ``state_path``.

        :param create: whether to make it if there is none.
        """
        self._held: frozenset[str] = frozenset()
        self.identity = ""
        path = state_path / FILE_NAME
        self._db = Database(path, MIGRATIONS, create=create, on_open=self._read_held)
        self.hints = hints.Hints(self._db)

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
        return read_record(rows[0]) if rows else None

    def records(self) -> list[Record]:
        """Read what is known of all instances."""
        return [read_record(row) for row in self._db.query(f"{_SELECT} ORDER BY instance_uuid")]

    def requests(self, instance_uuid: str) -> list[Request]:
        """Read what is asked for an instance, by whom; the last word last."""
        rows = self._db.query(
            "SELECT source, asked, message, asked_by, asked_at, generation FROM request"
            " WHERE instance_uuid = ?",
            (instance_uuid,),
        )
        return sorted(map(read_request, rows), key=lambda request: precedence.rank(request.source))

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
        return {
            row[0]: (stored.whole(generations[row[0]]), read_record(row))
            for row in records
            if is_instance(row[0])
        }

    def returning(self) -> set[str]:
        """Give the instances that nobody asks anything for, still to be at their baseline."""
        rows = self._db.query(f"{_NOBODY_ASKS} AND status != ?", (Status.ABSENT,))
        return {instance_uuid for (instance_uuid,) in rows if is_instance(instance_uuid)}

    def ask(self, instance_uuid: str, request: Request) -> bool:
        """Keep what is asked for an instance; it is on disk on return.

        :returns: whether it changes what is wanted.
        """
        with self._db.lock:
            with self._db.transaction(durable=True) as db:
                new = precedence.keep(db, instance_uuid, request)
                changed = new and precedence.decide(db, instance_uuid)
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
                    precedence.decide(db, instance_uuid, f"withdrawn by {asked_by}")
            if known:
                self._held |= {instance_uuid}
        return bool(known)

    def withdraw_unreadable(self, instance_uuid: str, asked_by: str) -> bool:
        """Delete what is kept of an instance and can't be read; tell whether there was any.

        :param instance_uuid: or the key of a row that no instance can have.
        """
        if not is_instance(instance_uuid):
            return self.forget(instance_uuid, f"deleted as unreadable by {asked_by}")
        with self._db.lock, self._db.transaction(durable=True) as db:
            return precedence.withdraw_unreadable(db, instance_uuid, asked_by)

    def restore(self, instance_uuid: str) -> bool:
        """Take what is wanted from the requests if it can't be read; tell whether that helps."""
        with self._db.lock, self._db.transaction(durable=True) as db:
            return precedence.restore(db, instance_uuid, "")

    def release(self, instance_uuid: str, asked_by: str) -> None:
        """Have a guest that nothing is known of go back to its baseline."""
        with self._db.lock:
            with self._db.transaction(durable=True) as db:
                precedence.decide(db, instance_uuid, f"released by {asked_by}")
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
        unobserved: str | None = None,
    ) -> bool:
        """Keep the outcome of working on ``record``.

        It is dropped if something else was asked meanwhile, but for what is
        in force.

        :param accepted: what is in force now; None leaves it as it was.
        :param note: what there is to say of a success.
        :param drift: what was found to be other than wanted.
        :param unobserved: what can't be observed, and why; None leaves it as it was.
        :returns: whether the outcome is anything new.
        """
        reason, message = said_of(error)
        message = message or note
        if not note and error is None and status is record.status:
            message = record.message
        same = (record.status, record.reason, record.message) == (status, reason, message)
        unobserved = record.unobserved if unobserved is None else kept(unobserved)
        in_force = accepted is None or accepted == record.accepted
        if same and drift is None and in_force and unobserved == record.unobserved:
            return False
        now = time.time()
        with self._db.transaction(durable=False) as db:
            changed = db.execute(
                "UPDATE instance SET status = ?, reason = ?, message = ?, changed_at = ?,"
                " accepted = coalesce(?, accepted), drift = coalesce(?, drift),"
                " drift_at = coalesce(?, drift_at), unobserved = ?"
                " WHERE instance_uuid = ? AND generation = ?",
                (
                    status,
                    reason,
                    message,
                    now if not same else record.changed_at,
                    None if accepted is None else dump(accepted),
                    None if drift is None else kept(str(drift)),
                    None if drift is None else now,
                    unobserved,
                    record.instance_uuid,
                    record.generation,
                ),
            ).rowcount
            if not changed and accepted is not None:
                # It is in force all the same: a later refusal leaves it so.
                db.execute(
                    "UPDATE instance SET accepted = ? WHERE instance_uuid = ?"
                    " AND asked IS NOT '{}'",
                    (dump(accepted), record.instance_uuid),
                )
            if changed and not (same and drift is None and in_force):
                said = (reason, message) if drift is None else said_of(drift)
                history.complete(db, record, status, *said, now)
        return bool(changed) and not same

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
        self._held = frozenset(uuid for uuid, _ in rows if is_instance(uuid))
        return [uuid for uuid, status in rows if status == Status.PENDING and uuid in self._held]

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
                    hints.drop(db, instance_uuid)
                    said = (Status.RELEASED, "", why, time.time())
                    history.remember(db, instance_uuid, of, None, source, "", asked, *said)
            if gone:
                self._held -= {instance_uuid}
        return bool(gone)

    def give_up(self, record: Record, hint: Hint | None, why: str) -> bool:
        """Forget an instance, unless anything was requested or said since it was read.

        :param hint: what Nova had said of where it is.
        :returns: whether it was forgotten.
        """
        with self._db.lock:
            return self.hints.get(record.instance_uuid) == hint and self.forget(
                record.instance_uuid, why, generation=record.generation
            )

    def history(self, instance_uuid: str) -> list[Change]:
        """Read an instance's history, the oldest entry first."""
        rows = self._db.query(
            f"SELECT {history.COLUMNS} FROM history WHERE instance_uuid = ? ORDER BY id",  # noqa: S608
            (instance_uuid,),
        )
        return [history.read(row) for row in rows]

    def purge(self, before: float) -> int:
        """Forget the history of before a time; give how many entries that were.

        With it goes what is kept of guests that have not run since, if they were to be
        returned to their baseline, or if Nova says that they are elsewhere.
        """
        left = [
            uuid for uuid in self._left_before(before) if self.forget(uuid, "did not run again")
        ]
        if left:
            LOG.info("Forgotten, because they did not run again: %s", ", ".join(left))
        with self._db.transaction(durable=False) as db:
            return db.execute("DELETE FROM history WHERE changed_at < ?", (before,)).rowcount

    def _left_before(self, before: float) -> list[str]:
        absent = "AND status = ? AND changed_at < ?"
        return [
            instance_uuid
            for left in (_NOBODY_ASKS, _ELSEWHERE)
            for (instance_uuid,) in self._db.query(f"{left} {absent}", (Status.ABSENT, before))
        ]

    def _read_held(self, db: sqlite3.Connection) -> None:
        found = db.execute("SELECT id FROM identity").fetchone()
        self.identity = str(found[0]) if found else ""
        keys = {key for (key,) in db.execute("SELECT instance_uuid FROM instance")}
        self._held = frozenset(filter(is_instance, keys))
        if strange := keys - self._held:
            LOG.warning(
                "%s has rows whose keys are not UUIDs of instances, they are left out: %s; "
                "'kongming-manage allocation unset' deletes them",
                FILE_NAME,
                ", ".join(sorted(map(shown, map(str, strange)))),
            )


_NOBODY_ASKS = (
    "SELECT instance_uuid FROM instance WHERE NOT EXISTS"
    " (SELECT 1 FROM request WHERE request.instance_uuid = instance.instance_uuid)"
)

_ELSEWHERE = (
    "SELECT instance_uuid FROM instance JOIN hint USING (instance_uuid) WHERE place = 'elsewhere'"
)

_SELECT = (
    "SELECT instance.instance_uuid, instance.asked, instance.accepted, instance.generation,"
    " instance.status, instance.reason, instance.message, instance.changed_at, instance.source,"
    " instance.drift, instance.drift_at, instance.unobserved FROM instance"
)
