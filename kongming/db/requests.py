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

"""What comes of asking for allocations, or for their end: which rows are written, and how.

Nothing here decides whether somebody may ask; the transaction is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from kongming import exception
from kongming.allocation import stored
from kongming.allocation.allocation import Allocation
from kongming.allocation.statuses import Status
from kongming.db import locking, rows
from kongming.db.locking import Fields
from kongming.db.models import ALLOCATION, HISTORY, NAME_LENGTH, OUTCOME
from kongming.db.upsert import add, upsert

_CHANGING = ("asked", "generation", "map_name", "asked_by", "updated_at")


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, in which request, and when."""

    name: str
    request_id: str
    now: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", rows.clean(self.name, NAME_LENGTH))
        object.__setattr__(self, "request_id", rows.clean(self.request_id, NAME_LENGTH))


@dataclass(slots=True)
class Changes:
    """What is going to be written about instances, all at once.

    :ivar written: rows that are there and will be other ones, by UUID.
    :ivar removed: UUIDs of those that nobody has to release.
    """

    asker: Asker
    written: dict[str, dict[str, Any]] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    _added: list[dict[str, Any]] = field(default_factory=list)
    _history: list[dict[str, Any]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.written or self.removed or self._added)

    def add(self, instance_uuid: str, asked: str, map_name: str | None, last: int) -> None:
        """Want something for an instance that nothing was wanted for.

        :param last: the generation that it had when something last was, or 0.
        """
        row = {
            "instance_uuid": instance_uuid,
            "asked": asked,
            "generation": last + 1,
            "project_id": None,
            "host": None,
            "map_name": map_name,
            "asked_by": self.asker.name,
            "created_at": self.asker.now,
            "updated_at": self.asker.now,
        }
        self._added.append(row)
        self._remember(row, map_name)

    def want(self, row: Fields, asked: str, map_name: str | None) -> None:
        """Want something else for an instance."""
        changed = self._change(row, asked, map_name)
        self._remember(changed, map_name)

    def adopt(self, row: Fields, map_name: str) -> None:
        """Have an instance belong to a map; what is wanted for it stays."""
        self.written[row["instance_uuid"]] = {**row, "map_name": map_name}

    def leave(self, row: Fields) -> None:
        """Have an instance that is being released belong to no map any more."""
        self.written[row["instance_uuid"]] = {**row, "map_name": None}

    def release(self, row: Fields, *, held: bool, map_name: str | None = None) -> None:
        """Want nothing any more for an instance.

        :param held: whether some host may have it.
        :param map_name: the map that waits for it.
        """
        changed = self._change(row, None, map_name)
        if held:
            self._remember(changed, row["map_name"])
            return
        del self.written[row["instance_uuid"]]
        self.removed.append(row["instance_uuid"])
        self._remember(changed, row["map_name"], Status.RELEASED)

    def write(self, session: Session) -> None:
        """Write all that was gathered: a number of statements that does not grow with it."""
        add(session, ALLOCATION, self._added)
        upsert(session, ALLOCATION, list(self.written.values()), _CHANGING)
        locking.remove(session, self.removed)
        add(session, HISTORY, self._history)

    def _change(self, row: Fields, asked: str | None, map_name: str | None) -> dict[str, Any]:
        changed = {
            **row,
            "asked": asked,
            "generation": row["generation"] + 1,
            "map_name": map_name,
            "asked_by": self.asker.name,
            "updated_at": self.asker.now,
        }
        self.written[row["instance_uuid"]] = changed
        return changed

    def _remember(
        self, row: Fields, map_name: str | None, status: Status = Status.PENDING
    ) -> None:
        self._history.append(
            {
                "instance_uuid": row["instance_uuid"],
                "generation": row["generation"],
                "asked": row["asked"],
                "map_name": map_name,
                "asked_by": self.asker.name,
                "request_id": self.asker.request_id,
                "asked_at": self.asker.now,
                "status": status.value,
                "reason": "",
                "message": "",
                "host": None,
                "changed_at": self.asker.now,
            }
        )


def check(wanted: int | None, there: Fields | None, *, ending: bool, what: str) -> None:
    """Refuse a change if it was made for another generation.

    :param wanted: the generation that the caller believes in; None for any, 0
        for "it does not exist".
    :param there: the row, with its generation.
    :param ending: whether it is on its way out, which counts as not existing.
    :param what: what it is, for the message.
    :raises GenerationConflict: if another one is there.
    """
    if wanted is None or (wanted == 0 and (there is None or ending)):
        return
    if there is None:
        raise exception.GenerationConflict(
            f"{what} does not exist, generation {wanted} was expected: read it again"
        )
    if wanted != there["generation"]:
        raise exception.GenerationConflict(
            f"{what} has generation {there['generation']}, not {wanted}: it was changed "
            "meanwhile; read it again"
        )


def put(
    session: Session, instance_uuid: str, asked: str, wanted: int | None, asker: Asker
) -> bool:
    """Want something for an instance; tell whether nothing was wanted before."""
    locked = locking.lock(session, [instance_uuid])
    row = locked.rows.get(instance_uuid)
    is_new = row is None or row["asked"] is None
    check(wanted, row, ending=is_new, what=f"the allocation of instance {instance_uuid}")
    changes = Changes(asker)
    if row is None:
        last = locking.last_generations(session, [instance_uuid])
        changes.add(instance_uuid, asked, None, last.get(instance_uuid, 0))
    elif not _is_same(row, asked):
        # What is being released with its map comes back alone.
        changes.want(row, asked, None if is_new else row["map_name"])
    changes.write(session)
    _tell_maps(session, locked, changes, asker.now)
    return is_new


def release(session: Session, instance_uuid: str, wanted: int | None, asker: Asker) -> None:
    """Want nothing any more for an instance.

    :raises AllocationUnknown: if nothing was wanted.
    """
    locked = locking.lock(session, [instance_uuid])
    row = locked.rows.get(instance_uuid)
    if row is None:
        raise exception.AllocationUnknown(
            f"instance {instance_uuid} has no allocation: check its UUID"
        )
    check(wanted, row, ending=False, what=f"the allocation of instance {instance_uuid}")
    if row["asked"] is None:
        return
    changes = Changes(asker)
    changes.release(row, held=instance_uuid in held(session, [row]))
    changes.write(session)
    _tell_maps(session, locked, changes, asker.now)


def held(session: Session, found: Iterable[Fields]) -> set[str]:
    """Tell which instances some host may have: their place is known, or it spoke of them."""
    placed = {row["instance_uuid"] for row in found if row["host"] is not None}
    others = [row["instance_uuid"] for row in found if row["host"] is None]
    if not others:
        return placed
    spoken = select(OUTCOME.c.instance_uuid).where(OUTCOME.c.instance_uuid.in_(others))
    return placed | set(session.scalars(spoken))


def want_all(
    session: Session,
    changes: Changes,
    name: str,
    allocations: Mapping[str, Allocation],
    found: Mapping[str, Fields],
) -> list[str]:
    """Want what a map says; give the UUIDs of those for which that is something else.

    :raises MapConflict: if one of them belongs to another map.
    """
    changed = []
    new = [instance_uuid for instance_uuid in allocations if instance_uuid not in found]
    last = locking.last_generations(session, new)
    for instance_uuid in sorted(allocations):
        row = found.get(instance_uuid)
        asked = rows.dump(allocations[instance_uuid])
        if row is None:
            changes.add(instance_uuid, asked, name, last.get(instance_uuid, 0))
            changed.append(instance_uuid)
            continue
        _check_map(row, name)
        if not _is_same(row, asked):
            changes.want(row, asked, name)
            changed.append(instance_uuid)
        elif row["map_name"] != name:
            changes.adopt(row, name)
    return changed


def release_all(
    session: Session, changes: Changes, found: Iterable[Fields], map_name: str | None
) -> list[str]:
    """Want nothing any more for these; give the UUIDs of those for which something was wanted.

    :param map_name: the map that waits for them; None if none does.
    """
    members = list(found)
    possibly = held(session, members)
    changed = []
    for row in members:
        if row["asked"] is None:
            if row["map_name"] != map_name:
                changes.leave(row)
            continue
        changes.release(row, held=row["instance_uuid"] in possibly, map_name=map_name)
        changed.append(row["instance_uuid"])
    return changed


def _tell_maps(session: Session, locked: locking.Locked, changes: Changes, now: float) -> None:
    """Have the map of a single instance know that something has changed in it."""
    if changes:
        locking.bump(session, list(locked.maps), now)
        locking.remove_empty(session, locked.maps)


def _is_same(row: Fields, asked: str) -> bool:
    """Tell whether that is wanted already, in whichever form it was written."""
    if row["asked"] == asked:
        return True
    if row["asked"] is None:
        return False
    return stored.load(row["asked"]) == stored.load(asked)


def _check_map(row: Fields, name: str) -> None:
    # What its own map is already letting go of may join another one.
    if row["map_name"] not in (None, name) and row["asked"] is not None:
        raise exception.MapConflict(
            f"instance {row['instance_uuid']} belongs to the allocation map {row['map_name']} and "
            f"can't also belong to {name}: remove it from one of them"
        )
