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

"""Reports of hosts, and locations by Nova: which of them are accepted, and how they are stored."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
import functools
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from kongming.allocation import stored
from kongming.allocation.statuses import Status
from kongming.db import locking, rows
from kongming.db.locking import Fields
from kongming.db.models import ALLOCATION, HISTORY, OUTCOME
from kongming.db.upsert import add, upsert
from kongming.db.values import Location, Transition, holder
from kongming.rpc.messages import Report

#: How late a message may arrive out of order, in seconds.
LATE_S = 300.0

_OUTCOME = tuple(column.name for column in OUTCOME.c if not column.primary_key)
_COMPLETED = ("status", "reason", "message", "host", "changed_at")


@dataclass(frozen=True)
class ReceivedReport:
    """A report of one instance, as received.

    :ivar host: empty if a conductor reports it.
    :ivar nova: whether Nova decides where instances are: until it has, no host's report is
        accepted.
    """

    host: str
    report: Report
    now: float
    nova: bool

    @functools.cached_property
    def outcome(self) -> Fields:
        """The columns of the table outcome."""
        values = self.report.to_json() | {"host": self.host, "reported_at": self.now}
        return {
            column.name: rows.clean(value, getattr(column.type, "length", None))
            if isinstance(value := values[column.name], str)
            else value
            for column in OUTCOME.c
        }

    def releases(self, row: Fields, before: Fields | None) -> bool:
        """Return whether this completes the release of an instance.

        :param row: of the table allocation.
        :param before: of the table outcome, if there is one.
        """
        return (
            self.report.status == Status.RELEASED
            and row["requested"] is None
            and self.report.generation >= row["generation"]
            and self._is_from_holder(row, before)
        )

    def is_accepted(self, row: Fields, before: Fields | None) -> bool:
        """Return whether this is a new outcome of the desired allocation, and may be stored.

        :param row: of the table allocation.
        :param before: of the table outcome, if there is one.
        """
        if self.report.generation != row["generation"] or self.report.status == Status.RELEASED:
            return False
        if not self._is_from_holder(row, before):
            return False
        if before is None:
            return True
        if any(self.outcome[name] != before[name] for name in _OUTCOME if name != "reported_at"):
            return not self._is_late(before)
        return False

    def _is_late(self, before: Fields) -> bool:
        """Return whether the host has sent a newer report since, by its own clock.

        That clock may have been set back, so an old report is accepted after a while.
        """
        if before["host"] != self.host or self.now - before["reported_at"] > LATE_S:
            return False
        reported = (self.report.changed_at, self.report.drift_at or 0.0)
        stored_times = (stored.moment(before["changed_at"]), stored.moment(before["drift_at"]))
        return reported < stored_times

    def _is_from_holder(self, row: Fields, before: Fields | None) -> bool:
        """Return whether this is a report of the host that holds the instance.

        If no host does, the reports of a conductor and of the first host are accepted; with Nova,
        those of a host only once a conductor has found that Nova does not know the instance.
        """
        held_by = holder(row["host"], None if before is None else before["host"])
        if held_by is not None:
            return self.host == held_by
        was_checked = before is not None and row["project_id"] is None
        return not self.host or not self.nova or was_checked


@dataclass(slots=True)
class _History:
    """Entries of the history to complete, and new ones."""

    latest: Mapping[str, Fields]
    completed: list[dict[str, Any]] = field(default_factory=list)
    added: list[dict[str, Any]] = field(default_factory=list)

    def record(self, row: Fields, received: Fields) -> None:
        """Record the outcome of the desired allocation of a row."""
        if received["status"] == Status.PENDING:
            return
        outcome = {name: received[name] for name in _COMPLETED}
        entry = self.latest.get(row["instance_uuid"])
        if entry is None or entry["generation"] != row["generation"]:
            self.added.append(_later(row, outcome))
        elif entry["status"] == Status.PENDING:
            self.completed.append({**entry, **outcome})
        elif entry["status"] != received["status"]:
            self.added.append(_later(row, outcome))

    def write(self, session: Session) -> None:
        upsert(session, HISTORY, self.completed, _COMPLETED)
        add(session, HISTORY, self.added)


def has_changes(session: Session, received: Mapping[str, ReceivedReport]) -> bool:
    """Return whether any report changes anything; reads in one statement, without locks."""
    found = session.execute(rows.entries().where(ALLOCATION.c.instance_uuid.in_(list(received))))
    for row in found:
        fields = row._asdict()
        each = received[fields["instance_uuid"]]
        before = {name: fields[f"outcome_{name}"] for name in _OUTCOME}
        previous = None if before["host"] is None else before
        if each.releases(fields, previous) or each.is_accepted(fields, previous):
            return True
    return False


def store(session: Session, received: Mapping[str, ReceivedReport]) -> list[Transition]:
    """Store the reports that change anything, in a fixed number of statements.

    :returns: the changes of statuses.
    """
    # Only a release may change a map: other reports need not lock maps.
    leaving = any(each.report.status == Status.RELEASED for each in received.values())
    locked = (locking.lock if leaving else locking.lock_instances)(session, received)
    before = _outcomes(session, locked.rows)
    there = locked.rows
    released = [uuid for uuid in there if received[uuid].releases(there[uuid], before.get(uuid))]
    accepted = [
        uuid for uuid in there if received[uuid].is_accepted(there[uuid], before.get(uuid))
    ]
    history = _History(_latest(session, [*released, *accepted]))
    for uuid in (*released, *accepted):
        history.record(there[uuid], received[uuid].outcome)
    upsert(session, OUTCOME, [received[uuid].outcome for uuid in accepted], _OUTCOME)
    history.write(session)
    if released:
        locking.leave(session, locked, released, received[released[0]].now)
    return [
        _transition(there[uuid], received[uuid].outcome)
        for uuid in (*released, *accepted)
        if _is_transition(received[uuid].outcome, before.get(uuid))
    ]


def _is_transition(received: Fields, before: Fields | None) -> bool:
    if received["status"] == Status.PENDING:
        return False
    return before is None or any(
        received[name] != before[name] for name in ("generation", "status")
    )


def _transition(row: Fields, received: Fields) -> Transition:
    return Transition(
        instance_uuid=row["instance_uuid"],
        project_id=row["project_id"],
        host=received["host"],
        map_name=row["map_name"],
        generation=received["generation"],
        status=Status.of(received["status"]),
        reason=received["reason"],
        message=received["message"],
        changed_at=received["changed_at"],
    )


def locate(session: Session, found: Mapping[str, Location]) -> list[str]:
    """Store the project and host of instances; return those whose host changed."""
    known = session.execute(select(ALLOCATION).where(ALLOCATION.c.instance_uuid.in_(list(found))))
    changed = [row.instance_uuid for row in known if _is_elsewhere(row._asdict(), found)]
    if not changed:
        return []
    # Locked, so that the upsert does not add a row that was deleted.
    there = locking.lock_instances(session, changed).rows
    written = [
        {**row, "project_id": found[uuid].project_id, "host": found[uuid].host}
        for uuid, row in there.items()
    ]
    upsert(session, ALLOCATION, written, ("project_id", "host"))
    return sorted(uuid for uuid, row in there.items() if row["host"] != found[uuid].host)


def claim(
    session: Session, host: str, instance_uuids: Iterable[str], lapsed: Container[str]
) -> list[str]:
    """Set the host of instances unless another host has them; return those that it obtained.

    :param lapsed: hosts that have lost their instances.
    """
    there = locking.lock_instances(session, instance_uuids).rows
    before = _outcomes(session, there)
    won = [uuid for uuid in there if _is_free(there[uuid], before.get(uuid), host, lapsed)]
    upsert(session, ALLOCATION, [{**there[uuid], "host": host} for uuid in won], ("host",))
    return won


def _is_free(row: Fields, before: Fields | None, host: str, lapsed: Container[str]) -> bool:
    """Return whether a host may claim an instance.

    Its host gives it up by reporting it as absent.
    """
    owner = row["host"]
    if owner is None or owner == host or owner in lapsed:
        return True
    return (
        before is not None and before["host"] == owner and before["status"] == Status.ABSENT.value
    )


def forget(session: Session, instance_uuids: Iterable[str], now: float) -> None:
    """Delete instances that don't exist any more, and add that to their history."""
    locked = locking.lock(session, instance_uuids)
    outcome = {"status": Status.GONE.value, "reason": "", "message": "", "host": None}
    ends = [
        _later({**row, "requested": None}, {**outcome, "changed_at": now})
        for row in locked.rows.values()
    ]
    add(session, HISTORY, ends)
    locking.leave(session, locked, list(locked.rows), now)


def _is_elsewhere(row: Fields, found: Mapping[str, Location]) -> bool:
    now = found[row["instance_uuid"]]
    return (row["project_id"], row["host"]) != (now.project_id, now.host)


def _later(row: Fields, outcome: Fields) -> dict[str, Any]:
    """Return an entry of the history for an outcome without a request."""
    return {
        "instance_uuid": row["instance_uuid"],
        "generation": row["generation"],
        "requested": row["requested"],
        "map_name": row["map_name"],
        "requested_by": "",
        "request_id": "",
        "requested_at": outcome["changed_at"],
        **outcome,
    }


def _outcomes(session: Session, instance_uuids: Iterable[str]) -> dict[str, Fields]:
    found = session.execute(select(OUTCOME).where(OUTCOME.c.instance_uuid.in_(instance_uuids)))
    return {row.instance_uuid: row._asdict() for row in found}


def _latest(session: Session, instance_uuids: Sequence[str]) -> dict[str, Fields]:
    if not instance_uuids:
        return {}
    found = session.execute(rows.latest_changes(instance_uuids))
    return {row.instance_uuid: row._asdict() for row in found}
