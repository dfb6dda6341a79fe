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

"""What hosts, and Nova, say of instances: what of it counts, and how it is kept."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from kongming.allocation import stored
from kongming.allocation.statuses import Status
from kongming.db import locking, rows
from kongming.db.locking import Fields
from kongming.db.models import ALLOCATION, HISTORY, NAME_LENGTH, OUTCOME, WORD_LENGTH
from kongming.db.upsert import add, upsert
from kongming.db.values import Location, holder
from kongming.rpc.messages import Report

#: What comes out of order is not later than so many seconds.
LATE_S = 300.0

_OUTCOME = tuple(column.name for column in OUTCOME.c if not column.primary_key)
_COMPLETED = ("status", "reason", "message", "host", "changed_at")


@dataclass(frozen=True, slots=True)
class Said:
    """What a host said of one instance, as it is going to be kept.

    :ivar host: empty if a conductor said it.
    :ivar nova: whether Nova says where instances are: then no host's word counts before it has.
    """

    host: str
    report: Report
    now: float
    nova: bool

    @property
    def outcome(self) -> dict[str, Any]:
        """The columns of the table outcome."""
        return {
            "instance_uuid": self.report.instance_uuid,
            "host": rows.clean(self.host, NAME_LENGTH),
            "generation": self.report.generation,
            "status": rows.clean(self.report.status, WORD_LENGTH),
            "reason": rows.clean(self.report.reason, WORD_LENGTH),
            "message": rows.clean(self.report.message),
            "source": rows.clean(self.report.source, WORD_LENGTH),
            "drift": rows.clean(self.report.drift),
            "drift_at": self.report.drift_at,
            "changed_at": self.report.changed_at,
            "reported_at": self.now,
            "unobserved": None
            if self.report.unobserved is None
            else rows.clean(self.report.unobserved),
        }

    def releases(self, row: Fields, before: Fields | None) -> bool:
        """Tell whether what is to be released has been, by the word of who may say so.

        :param row: of the table allocation.
        :param before: of the table outcome, if there is one.
        """
        return (
            self.report.status == Status.RELEASED
            and row["asked"] is None
            and self.report.generation >= row["generation"]
            and self._is_holders(row, before)
        )

    def counts(self, row: Fields, before: Fields | None) -> bool:
        """Tell whether it says anything new of what is wanted, and may.

        :param row: of the table allocation.
        :param before: of the table outcome, if there is one.
        """
        if self.report.generation != row["generation"] or self.report.status == Status.RELEASED:
            return False
        if not self._is_holders(row, before):
            return False
        said = self.outcome
        if before is None:
            return True
        if any(said[name] != before[name] for name in _OUTCOME if name != "reported_at"):
            return not self._is_late(before)
        return False

    def _is_late(self, before: Fields) -> bool:
        """Tell whether the same host has said something newer since, by its own clock.

        That clock may have been set back: what a host goes on saying counts after a while.
        """
        if before["host"] != self.host or self.now - before["reported_at"] > LATE_S:
            return False
        told = (self.report.changed_at, self.report.drift_at or 0.0)
        known = (stored.moment(before["changed_at"]), stored.moment(before["drift_at"]))
        return told < known

    def _is_holders(self, row: Fields, before: Fields | None) -> bool:
        """Tell whether this is the word of who holds the instance.

        If no host does, a conductor's counts, and the first host's: with Nova only once a
        conductor has found that Nova does not know the instance.
        """
        held_by = holder(row["host"], None if before is None else before["host"])
        if held_by is not None:
            return self.host == held_by
        looked_for = before is not None and row["project_id"] is None
        return not self.host or not self.nova or looked_for


@dataclass(slots=True)
class _History:
    """Entries of the history that are completed, and those that are added."""

    latest: Mapping[str, Fields]
    completed: list[dict[str, Any]] = field(default_factory=list)
    added: list[dict[str, Any]] = field(default_factory=list)

    def tell(self, row: Fields, said: Fields) -> None:
        """Tell what came of what is wanted by ``row``."""
        if said["status"] == Status.PENDING:
            return
        outcome = {name: said[name] for name in _COMPLETED}
        entry = self.latest.get(row["instance_uuid"])
        if entry is None or entry["generation"] != row["generation"]:
            self.added.append(_later(row, outcome))
        elif entry["status"] == Status.PENDING:
            self.completed.append({**entry, **outcome})
        elif entry["status"] != said["status"]:
            self.added.append(_later(row, outcome))

    def write(self, session: Session) -> None:
        upsert(session, HISTORY, self.completed, _COMPLETED)
        add(session, HISTORY, self.added)


def is_news(session: Session, said: Mapping[str, Said]) -> bool:
    """Tell whether anything of it changes anything; one statement, and no lock."""
    found = session.execute(rows.entries().where(ALLOCATION.c.instance_uuid.in_(list(said))))
    for row in found:
        fields = row._asdict()
        each = said[fields["instance_uuid"]]
        before = {name: fields[f"outcome_{name}"] for name in _OUTCOME}
        known = None if before["host"] is None else before
        if each.releases(fields, known) or each.counts(fields, known):
            return True
    return False


def keep(session: Session, said: Mapping[str, Said]) -> None:
    """Keep what is new of it: a number of statements that does not grow with it."""
    # Only who is the last to leave a map changes it: the others need not wait for each other.
    leaving = any(each.report.status == Status.RELEASED for each in said.values())
    locked = (locking.lock if leaving else locking.lock_alone)(session, said)
    before = _outcomes(session, locked.rows)
    there = locked.rows
    released = [uuid for uuid in there if said[uuid].releases(there[uuid], before.get(uuid))]
    told = [uuid for uuid in there if said[uuid].counts(there[uuid], before.get(uuid))]
    history = _History(_latest(session, [*released, *told]))
    for uuid in (*released, *told):
        history.tell(there[uuid], said[uuid].outcome)
    upsert(session, OUTCOME, [said[uuid].outcome for uuid in told], _OUTCOME)
    history.write(session)
    if released:
        locking.leave(session, locked, released, said[released[0]].now)


def locate(session: Session, found: Mapping[str, Location]) -> list[str]:
    """Keep whose instances are and where; give those that are elsewhere now."""
    known = session.execute(select(ALLOCATION).where(ALLOCATION.c.instance_uuid.in_(list(found))))
    news = [row.instance_uuid for row in known if _is_elsewhere(row._asdict(), found)]
    if not news:
        return []
    # Nobody can take them away now, so that none of them is made anew.
    there = locking.lock_alone(session, news).rows
    written = [
        {**row, "project_id": found[uuid].project_id, "host": found[uuid].host}
        for uuid, row in there.items()
    ]
    upsert(session, ALLOCATION, written, ("project_id", "host"))
    return sorted(uuid for uuid, row in there.items() if row["host"] != found[uuid].host)


def claim(
    session: Session, host: str, instance_uuids: Iterable[str], lapsed: Container[str]
) -> list[str]:
    """Note instances as being on a host, unless another one has them; give those that it won.

    :param lapsed: hosts that have nothing any more.
    """
    there = locking.lock_alone(session, instance_uuids).rows
    before = _outcomes(session, there)
    won = [uuid for uuid in there if _is_free(there[uuid], before.get(uuid), host, lapsed)]
    upsert(session, ALLOCATION, [{**there[uuid], "host": host} for uuid in won], ("host",))
    return won


def _is_free(row: Fields, before: Fields | None, host: str, lapsed: Container[str]) -> bool:
    """Tell whether a host may claim an instance.

    Who has it may give it up: it does so by reporting it as absent.
    """
    owner = row["host"]
    if owner is None or owner == host or owner in lapsed:
        return True
    return (
        before is not None and before["host"] == owner and before["status"] == Status.ABSENT.value
    )


def end(session: Session, instance_uuids: Iterable[str], now: float) -> None:
    """Forget instances that don't exist any more; their history says so."""
    locked = locking.lock(session, instance_uuids)
    gone = {"status": Status.GONE.value, "reason": "", "message": "", "host": None}
    ends = [
        _later({**row, "asked": None}, {**gone, "changed_at": now}) for row in locked.rows.values()
    ]
    add(session, HISTORY, ends)
    locking.leave(session, locked, list(locked.rows), now)


def _is_elsewhere(row: Fields, found: Mapping[str, Location]) -> bool:
    now = found[row["instance_uuid"]]
    return (row["project_id"], row["host"]) != (now.project_id, now.host)


def _later(row: Fields, outcome: Fields) -> dict[str, Any]:
    """Make an entry that nobody asked for."""
    return {
        "instance_uuid": row["instance_uuid"],
        "generation": row["generation"],
        "asked": row["asked"],
        "map_name": row["map_name"],
        "asked_by": "",
        "request_id": "",
        "asked_at": outcome["changed_at"],
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
