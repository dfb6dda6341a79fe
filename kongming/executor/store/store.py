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

"""The store: requests, desired allocations and outcomes on disk, which survive every crash.

One SQLite database under the state path, which the service and the operator's tools use at the
same time.
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
from kongming.executor.store.outcome import Outcome
from kongming.executor.store.record import HistoryEntry, Record, read_record, read_request
from kongming.executor.store.residence import Hint
from kongming.executor.store.schema import MIGRATIONS
from kongming.runtime.sqlite import Database

LOG = logging.getLogger(__name__)

FILE_NAME = "allocations.sqlite"


class Store:
    """The database of one host. Any thread may call any method.

    Every method raises ``StoreUnavailable`` if the database can't be used.

    :ivar hints: where Nova reports the instances.
    :ivar identity: identifies this store: one created after a loss has another identity.
    """

    def __init__(self, state_path: Path, *, create: bool = True) -> None:
        """Open the database in the directory ``state_path``.

        :param create: whether to create it if there is none.
        """
        self._instances: frozenset[str] = frozenset()
        self.identity = ""
        path = state_path / FILE_NAME
        self._db = Database(path, MIGRATIONS, create=create, on_open=self._read_instances)
        self.hints = hints.Hints(self._db)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def instances(self) -> frozenset[str]:
        """Return the UUIDs of all instances with a record."""
        return self._instances

    def has_record(self, instance_uuid: str) -> bool:
        """Return whether an instance has a record; this reads no file."""
        return instance_uuid in self._instances

    def get(self, instance_uuid: str) -> Record | None:
        """Read the record of an instance."""
        rows = self._db.query(f"{_SELECT} WHERE instance_uuid = ?", (instance_uuid,))
        return read_record(rows[0]) if rows else None

    def records(self) -> list[Record]:
        """Read all records."""
        return [read_record(row) for row in self._db.query(f"{_SELECT} ORDER BY instance_uuid")]

    def requests(self, instance_uuid: str) -> list[Request]:
        """Read an instance's requests, the one that takes precedence last."""
        rows = self._db.query(
            "SELECT source, requested, message, requested_by, requested_at, generation"
            " FROM request WHERE instance_uuid = ?",
            (instance_uuid,),
        )
        return sorted(map(read_request, rows), key=lambda request: precedence.rank(request.source))

    def requested_by(self, source: Source) -> dict[str, tuple[int, Record]]:
        """Read what a source requests.

        :returns: for each instance the generation that the source gave its request, and the
            record.
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
            row[0]: (stored.integer(generations[row[0]]), read_record(row))
            for row in records
            if is_instance(row[0])
        }

    def returning(self) -> set[str]:
        """Return the instances without a request that have not yet returned to their baseline."""
        rows = self._db.query(f"{_UNREQUESTED} AND status != ?", (Status.ABSENT,))
        return {instance_uuid for (instance_uuid,) in rows if is_instance(instance_uuid)}

    def request(self, instance_uuid: str, request: Request) -> bool:
        """Store a request; it is on disk on return.

        :returns: whether it changes the desired allocation.
        """
        with self._db.lock:
            with self._db.transaction(durable=True) as db:
                new = precedence.save(db, instance_uuid, request)
                changed = new and precedence.update_desired(db, instance_uuid)
            if changed:
                self._instances |= {instance_uuid}
        return changed

    def withdraw(self, instance_uuid: str, source: Source, requested_by: str) -> bool:
        """Withdraw a source's request; return whether there was one."""
        with self._db.lock:
            with self._db.transaction(durable=True) as db:
                known = db.execute(
                    "DELETE FROM request WHERE instance_uuid = ? AND source = ?",
                    (instance_uuid, source),
                ).rowcount
                if known:
                    precedence.update_desired(db, instance_uuid, f"withdrawn by {requested_by}")
            if known:
                self._instances |= {instance_uuid}
        return bool(known)

    def withdraw_unreadable(self, instance_uuid: str, requested_by: str) -> bool:
        """Delete what can't be read of an instance; return whether there was anything.

        :param instance_uuid: or the key of a row that no instance can have.
        """
        if not is_instance(instance_uuid):
            return self.forget(instance_uuid, f"deleted as unreadable by {requested_by}")
        with self._db.lock, self._db.transaction(durable=True) as db:
            return precedence.withdraw_unreadable(db, instance_uuid, requested_by)

    def restore(self, instance_uuid: str) -> bool:
        """Update an unreadable desired allocation from the requests; return whether that helps."""
        with self._db.lock, self._db.transaction(durable=True) as db:
            return precedence.restore(db, instance_uuid, "")

    def release(self, instance_uuid: str, requested_by: str) -> None:
        """Have a guest without a record return to its baseline."""
        with self._db.lock:
            with self._db.transaction(durable=True) as db:
                precedence.update_desired(db, instance_uuid, f"released by {requested_by}")
            self._instances |= {instance_uuid}

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
        """Store the outcome of a pass over ``record``.

        It is dropped if the request has changed meanwhile, except for the accepted allocation.

        :param accepted: the allocation in force now; None if unchanged.
        :param note: the message of a success.
        :param drift: what was found to differ from the desired allocation.
        :param unobserved: what can't be observed, and why; None if unchanged.
        :returns: whether the outcome is new.
        """
        outcome = Outcome.of(
            record,
            status,
            error,
            accepted=accepted,
            note=note,
            drift=drift,
            unobserved=unobserved,
        )
        if not outcome.must_be_stored:
            return False
        with self._db.transaction(durable=False) as db:
            return outcome.store(db) and outcome.is_new

    def request_pass(self, instance_uuid: str) -> bool:
        """Have the service make a pass over an instance; return whether it has a record."""
        with self._db.transaction(durable=True) as db:
            return bool(
                db.execute(
                    "UPDATE instance SET status = ?, reason = '', changed_at = ?"
                    " WHERE instance_uuid = ?",
                    (Status.PENDING, time.time(), instance_uuid),
                ).rowcount
            )

    def take_pending(self) -> list[str]:
        """Return the instances that other processes have set to pending since the last call."""
        if not self._db.changed_elsewhere():
            return []
        rows = self._db.query("SELECT instance_uuid, status FROM instance")
        self._instances = frozenset(uuid for uuid, _ in rows if is_instance(uuid))
        return [
            uuid for uuid, status in rows if status == Status.PENDING and uuid in self._instances
        ]

    def forget(self, instance_uuid: str, why: str, *, generation: int | None = None) -> bool:
        """Delete an instance's record and requests; its history remains.

        :param generation: delete only a record of this generation.
        :returns: whether there was one.
        """
        with self._db.lock:
            with self._db.transaction(durable=True) as db:
                removed = db.execute(
                    "DELETE FROM instance WHERE instance_uuid = ?1"
                    " AND generation = coalesce(?2, generation)"
                    " RETURNING generation, source, requested",
                    (instance_uuid, generation),
                ).fetchall()
                for of, source, requested in removed:
                    db.execute("DELETE FROM request WHERE instance_uuid = ?", (instance_uuid,))
                    hints.drop(db, instance_uuid)
                    outcome = (Status.RELEASED, "", why, time.time())
                    history.add(db, instance_uuid, of, None, source, "", requested, *outcome)
            if removed:
                self._instances -= {instance_uuid}
        return bool(removed)

    def forget_if_unchanged(self, record: Record, hint: Hint | None, why: str) -> bool:
        """Forget an instance unless its request or Nova's report has changed since it was read.

        :param hint: what Nova had reported.
        :returns: whether it was forgotten.
        """
        with self._db.lock:
            return self.hints.get(record.instance_uuid) == hint and self.forget(
                record.instance_uuid, why, generation=record.generation
            )

    def history(self, instance_uuid: str) -> list[HistoryEntry]:
        """Read an instance's history, the oldest entry first."""
        rows = self._db.query(
            f"SELECT {history.COLUMNS} FROM history WHERE instance_uuid = ? ORDER BY id",  # noqa: S608
            (instance_uuid,),
        )
        return [history.read(row) for row in rows]

    def purge(self, before: float) -> int:
        """Delete old history; return the number of entries.

        Also forgets instances that have not run since then, if they have no request, or if Nova
        reports them elsewhere.

        :param before: delete what is older, in seconds since the epoch.
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
            for left in (_UNREQUESTED, _ELSEWHERE)
            for (instance_uuid,) in self._db.query(f"{left} {absent}", (Status.ABSENT, before))
        ]

    def _read_instances(self, db: sqlite3.Connection) -> None:
        found = db.execute("SELECT id FROM identity").fetchone()
        self.identity = str(found[0]) if found else ""
        keys = {key for (key,) in db.execute("SELECT instance_uuid FROM instance")}
        self._instances = frozenset(filter(is_instance, keys))
        if invalid := keys - self._instances:
            LOG.warning(
                "%s has rows whose keys are not UUIDs of instances, they are left out: %s; "
                "'kongming-manage allocation unset' deletes them",
                FILE_NAME,
                ", ".join(sorted(map(shown, map(str, invalid)))),
            )


_UNREQUESTED = (
    "SELECT instance_uuid FROM instance WHERE NOT EXISTS"
    " (SELECT 1 FROM request WHERE request.instance_uuid = instance.instance_uuid)"
)

_ELSEWHERE = (
    "SELECT instance_uuid FROM instance JOIN hint USING (instance_uuid) WHERE place = 'elsewhere'"
)

_SELECT = (
    "SELECT instance.instance_uuid, instance.requested, instance.accepted, instance.generation,"
    " instance.status, instance.reason, instance.message, instance.changed_at, instance.source,"
    " instance.drift, instance.drift_at, instance.unobserved FROM instance"
)
