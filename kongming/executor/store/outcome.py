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

"""The outcome of a pass in the store: in the row of the instance, and in the history."""

from __future__ import annotations

from dataclasses import dataclass
import sqlite3
import time

from kongming import exception
from kongming.allocation.allocation import Allocation
from kongming.allocation.statuses import Status
from kongming.executor.store import history
from kongming.executor.store.record import Record, dump, reason_and_message, storable


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a pass over a record.

    :ivar accepted: the allocation in force now; None if unchanged.
    :ivar drift: what was found to differ from the desired allocation.
    """

    record: Record
    status: Status
    reason: str
    message: str
    accepted: Allocation | None
    drift: exception.Drifted | None
    unobserved: str

    @classmethod
    def of(
        cls,
        record: Record,
        status: Status,
        error: exception.KongmingError | None,
        *,
        accepted: Allocation | None,
        note: str,
        drift: exception.Drifted | None,
        unobserved: str | None,
    ) -> Outcome:
        """Return an outcome; the parameters are those of ``Store.report``."""
        reason, message = reason_and_message(error)
        message = message or note
        if not note and error is None and status is record.status:
            message = record.message
        unobserved = record.unobserved if unobserved is None else storable(unobserved)
        return cls(record, status, reason, message, accepted, drift, unobserved)

    @property
    def is_new(self) -> bool:
        """Whether status, reason or message differ from the record's."""
        former = self.record
        return (self.status, self.reason, self.message) != (
            former.status,
            former.reason,
            former.message,
        )

    @property
    def has_entry(self) -> bool:
        """Whether it belongs into the history."""
        is_accepted = self.accepted is not None and self.accepted != self.record.accepted
        return self.is_new or self.drift is not None or is_accepted

    @property
    def must_be_stored(self) -> bool:
        """Whether anything differs from the record."""
        return self.has_entry or self.unobserved != self.record.unobserved

    def store(self, db: sqlite3.Connection) -> bool:
        """Store it within a transaction; return whether the record still has its generation."""
        record, now = self.record, time.time()
        accepted = None if self.accepted is None else dump(self.accepted)
        stored = db.execute(
            "UPDATE instance SET status = ?, reason = ?, message = ?, changed_at = ?,"
            " accepted = coalesce(?, accepted), drift = coalesce(?, drift),"
            " drift_at = coalesce(?, drift_at), unobserved = ?"
            " WHERE instance_uuid = ? AND generation = ?",
            (
                self.status,
                self.reason,
                self.message,
                now if self.is_new else record.changed_at,
                accepted,
                None if self.drift is None else storable(str(self.drift)),
                None if self.drift is None else now,
                self.unobserved,
                record.instance_uuid,
                record.generation,
            ),
        ).rowcount
        if stored and self.has_entry:
            entry = (self.reason, self.message)
            if self.drift is not None:
                entry = reason_and_message(self.drift)
            history.complete(db, record, self.status, *entry, now)
        elif accepted is not None and not stored:
            # It is in force nevertheless, and remains so if a later request is refused.
            db.execute(
                "UPDATE instance SET accepted = ? WHERE instance_uuid = ?"
                " AND requested IS NOT '{}'",
                (accepted, record.instance_uuid),
            )
        return bool(stored)
