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

"""The rows that a request or a release writes. The caller owns the transaction."""

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
from kongming.db.database import StaleRead
from kongming.db.locking import Fields
from kongming.db.models import ALLOCATION, HISTORY, NAME_LENGTH, OUTCOME
from kongming.db.upsert import add, upsert

_CHANGING = ("requested", "generation", "map_name", "requested_by", "updated_at")


@dataclass(frozen=True, slots=True)
class Requester:
    """Who makes a request, with its id and time."""

    name: str
    request_id: str
    now: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", rows.clean(self.name, NAME_LENGTH))
        object.__setattr__(self, "request_id", rows.clean(self.request_id, NAME_LENGTH))


@dataclass(slots=True)
class Changes:
    """Rows of instances to write at once.

    :ivar written: changed rows by UUID.
    :ivar removed: UUIDs of instances that no host has to release.
    """

    requester: Requester
    written: dict[str, dict[str, Any]] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    _added: list[dict[str, Any]] = field(default_factory=list)
    _history: list[dict[str, Any]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.written or self.removed or self._added)

    def add(self, instance_uuid: str, requested: str, map_name: str | None, last: int) -> None:
        """Add an allocation for an instance that has none.

        :param last: the last generation that the instance had, or 0.
        """
        row = {
            "instance_uuid": instance_uuid,
            "requested": requested,
            "generation": last + 1,
            "project_id": None,
            "host": None,
            "map_name": map_name,
            "requested_by": self.requester.name,
            "created_at": self.requester.now,
            "updated_at": self.requester.now,
        }
        self._added.append(row)
        self._add_history(row, map_name)

    def request(self, row: Fields, requested: str, map_name: str | None) -> None:
        """Change the allocation of an instance."""
        changed = self._change(row, requested, map_name)
        self._add_history(changed, map_name)

    def adopt(self, row: Fields, map_name: str) -> None:
        """Add an instance to a map, with the allocation that it has."""
        self.written[row["instance_uuid"]] = {**row, "map_name": map_name}

    def leave(self, row: Fields) -> None:
        """Remove an instance that is being released from its map."""
        self.written[row["instance_uuid"]] = {**row, "map_name": None}

    def release(self, row: Fields, *, held: bool, map_name: str | None = None) -> None:
        """Release an instance.

        :param held: whether some host may have it.
        :param map_name: the map that is deleted after it.
        """
        changed = self._change(row, None, map_name)
        if held:
            self._add_history(changed, row["map_name"])
            return
        del self.written[row["instance_uuid"]]
        self.removed.append(row["instance_uuid"])
        self._add_history(changed, row["map_name"], Status.RELEASED)

    def write(self, session: Session) -> None:
        """Write all changes in a fixed number of statements.

        :raises StaleRead: if an instance had another allocation since its last generation was
            read, which was released meanwhile.
        """
        add(session, ALLOCATION, self._added)
        # From here on no other transaction can add these instances.
        generations = {row["instance_uuid"]: row["generation"] for row in self._added}
        last = locking.last_generations(session, list(generations))
        if any(generation >= generations[uuid] for uuid, generation in last.items()):
            raise StaleRead
        upsert(session, ALLOCATION, list(self.written.values()), _CHANGING)
        locking.remove(session, self.removed)
        add(session, HISTORY, self._history)

    def _change(self, row: Fields, requested: str | None, map_name: str | None) -> dict[str, Any]:
        changed = {
            **row,
            "requested": requested,
            "generation": row["generation"] + 1,
            "map_name": map_name,
            "requested_by": self.requester.name,
            "updated_at": self.requester.now,
        }
        self.written[row["instance_uuid"]] = changed
        return changed

    def _add_history(
        self, row: Fields, map_name: str | None, status: Status = Status.PENDING
    ) -> None:
        self._history.append(
            {
                "instance_uuid": row["instance_uuid"],
                "generation": row["generation"],
                "requested": row["requested"],
                "map_name": map_name,
                "requested_by": self.requester.name,
                "request_id": self.requester.request_id,
                "requested_at": self.requester.now,
                "status": status.value,
                "reason": "",
                "message": "",
                "host": None,
                "changed_at": self.requester.now,
            }
        )


def check(expected: int | None, current: Fields | None, *, ending: bool, what: str) -> None:
    """Reject a change that was made for another generation.

    :param expected: the generation that the caller expects; None for any, 0 for "does not exist".
    :param current: the row, with its generation.
    :param ending: whether it is being deleted, which counts as not existing.
    :param what: its name for the message.
    :raises GenerationConflict: if the generations differ.
    """
    if expected is None or (expected == 0 and (current is None or ending)):
        return
    if current is None:
        raise exception.GenerationConflict(
            f"{what} does not exist, generation {expected} was expected: read it again"
        )
    if expected != current["generation"]:
        raise exception.GenerationConflict(
            f"{what} has generation {current['generation']}, not {expected}: it was changed "
            "meanwhile; read it again"
        )


def check_map(instance_uuid: str, current: str | None, name: str) -> None:
    """Reject an instance of another map.

    :param current: the map that it belongs to.
    :raises MapConflict: if it is another one.
    """
    if current not in (None, name):
        raise exception.MapConflict(
            f"instance {instance_uuid} belongs to the allocation map {current} and can't also "
            f"belong to {name}: remove it from one of them"
        )


def put(
    session: Session,
    instance_uuid: str,
    requested: str,
    expected: int | None,
    requester: Requester,
) -> bool:
    """Set the allocation of an instance; return whether it had none before."""
    locked = locking.lock(session, [instance_uuid])
    row = locked.rows.get(instance_uuid)
    is_new = row is None or row["requested"] is None
    check(expected, row, ending=is_new, what=f"the allocation of instance {instance_uuid}")
    changes = Changes(requester)
    if row is None:
        last = locking.last_generations(session, [instance_uuid])
        changes.add(instance_uuid, requested, None, last.get(instance_uuid, 0))
    elif not _is_same(row, requested):
        # An instance that is released with its map does not return to the map.
        changes.request(row, requested, None if is_new else row["map_name"])
    changes.write(session)
    _update_maps(session, locked, changes, requester.now)
    return is_new


def release(
    session: Session, instance_uuid: str, expected: int | None, requester: Requester
) -> None:
    """Release an instance.

    :raises AllocationUnknown: if it has no allocation.
    """
    locked = locking.lock(session, [instance_uuid])
    row = locked.rows.get(instance_uuid)
    if row is None:
        raise exception.AllocationUnknown(
            f"instance {instance_uuid} has no allocation: check its UUID"
        )
    check(expected, row, ending=False, what=f"the allocation of instance {instance_uuid}")
    if row["requested"] is None:
        return
    changes = Changes(requester)
    changes.release(row, held=instance_uuid in held(session, [row]))
    changes.write(session)
    _update_maps(session, locked, changes, requester.now)


def held(session: Session, found: Iterable[Fields]) -> set[str]:
    """Return the instances that some host may have: they have a host, or a host reported them."""
    placed = {row["instance_uuid"] for row in found if row["host"] is not None}
    others = [row["instance_uuid"] for row in found if row["host"] is None]
    if not others:
        return placed
    spoken = select(OUTCOME.c.instance_uuid).where(OUTCOME.c.instance_uuid.in_(others))
    return placed | set(session.scalars(spoken))


def request_all(
    session: Session,
    changes: Changes,
    name: str,
    allocations: Mapping[str, Allocation],
    found: Mapping[str, Fields],
) -> list[str]:
    """Set the allocations of a map; return the UUIDs of those that changed.

    :raises MapConflict: if an instance belongs to another map.
    """
    changed = []
    new = [instance_uuid for instance_uuid in allocations if instance_uuid not in found]
    last = locking.last_generations(session, new)
    for instance_uuid in sorted(allocations):
        row = found.get(instance_uuid)
        requested = rows.dump(allocations[instance_uuid])
        if row is None:
            changes.add(instance_uuid, requested, name, last.get(instance_uuid, 0))
            changed.append(instance_uuid)
            continue
        # An instance that its map is releasing may join another map.
        if row["requested"] is not None:
            check_map(instance_uuid, row["map_name"], name)
        if not _is_same(row, requested):
            changes.request(row, requested, name)
            changed.append(instance_uuid)
        elif row["map_name"] != name:
            changes.adopt(row, name)
    return changed


def release_all(
    session: Session, changes: Changes, found: Iterable[Fields], map_name: str | None
) -> list[str]:
    """Release instances; return the UUIDs of those that had an allocation.

    :param map_name: the map that is deleted after them, if any.
    """
    members = list(found)
    possibly = held(session, members)
    changed = []
    for row in members:
        if row["requested"] is None:
            if row["map_name"] != map_name:
                changes.leave(row)
            continue
        changes.release(row, held=row["instance_uuid"] in possibly, map_name=map_name)
        changed.append(row["instance_uuid"])
    return changed


def _update_maps(session: Session, locked: locking.Locked, changes: Changes, now: float) -> None:
    """Update the map of an instance that was changed on its own."""
    if changes:
        locking.bump_generations(session, list(locked.maps), now)
        locking.remove_empty_maps(session, locked.maps)


def _is_same(row: Fields, requested: str) -> bool:
    """Return whether an allocation is the same, in whichever form it was written."""
    if row["requested"] == requested:
        return True
    if row["requested"] is None:
        return False
    return stored.load(row["requested"]) == stored.load(requested)
