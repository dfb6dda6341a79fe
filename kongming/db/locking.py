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

"""Row locks in a fixed order that rules out deadlocks: maps by name, then instances by UUID."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from kongming.allocation import stored
from kongming.db.database import StaleRead
from kongming.db.models import ALLOCATION, ALLOCATION_MAP, HISTORY, OUTCOME

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Locked:
    """Rows that are locked until the transaction ends.

    :ivar maps: name → columns, of the table allocation_map.
    :ivar rows: UUID → columns, of the table allocation.
    """

    maps: dict[str, Fields]
    rows: dict[str, Fields]


def lock(session: Session, instance_uuids: Iterable[str], map_name: str | None = None) -> Locked:
    """Lock instances and the maps that they belong to.

    :param map_name: a map to lock, too, with all instances that belong to it.
    :raises StaleRead: if an instance has just been added to a map.
    """
    uuids = set(instance_uuids)
    names = _maps_of(session, uuids) | ({map_name} if map_name else set())
    maps = _lock_maps(session, names)
    if map_name in maps:
        # The members of a locked map can't change.
        members = select(ALLOCATION.c.instance_uuid).where(ALLOCATION.c.map_name == map_name)
        uuids |= set(session.scalars(members))
    rows = _lock_rows(session, uuids)
    # A map may be missing though an instance names it.
    if not {row["map_name"] for row in rows.values()} <= {None, *names}:
        raise StaleRead
    return Locked(maps, rows)


def lock_instances(session: Session, instance_uuids: Iterable[str]) -> Locked:
    """Lock instances without their maps, to change neither maps nor membership."""
    return Locked({}, _lock_rows(session, set(instance_uuids)))


def bump_generations(session: Session, names: Sequence[str], now: float) -> None:
    """Increment the generation of maps."""
    if names:
        session.execute(
            update(ALLOCATION_MAP)
            .where(ALLOCATION_MAP.c.name.in_(names))
            .values(generation=ALLOCATION_MAP.c.generation + 1, updated_at=now)
        )


def remove(session: Session, instance_uuids: Sequence[str]) -> None:
    """Delete instances and their outcomes."""
    if instance_uuids:
        for table in (ALLOCATION, OUTCOME):
            session.execute(delete(table).where(table.c.instance_uuid.in_(instance_uuids)))


def leave(session: Session, locked: Locked, instance_uuids: Sequence[str], now: float) -> None:
    """Delete instances; delete a map that is being deleted with its last instance.

    The row of the map is always written: nodes of a Galera cluster don't see each other's locks,
    so two transactions could each take the other's instance for one that is left.
    """
    remove(session, instance_uuids)
    left = {locked.rows[uuid]["map_name"] for uuid in instance_uuids}
    going = sorted(name for name in left & locked.maps.keys() if locked.maps[name]["deleting"])
    bump_generations(session, going, now)
    remove_empty_maps(session, going)


def remove_empty_maps(session: Session, names: Iterable[str] | None = None) -> int:
    """Delete maps that are being deleted and have no instances left; return their number.

    :param names: the maps to check; None for all.
    """
    left = select(ALLOCATION.c.instance_uuid).where(ALLOCATION.c.map_name == ALLOCATION_MAP.c.name)
    empty = delete(ALLOCATION_MAP).where(ALLOCATION_MAP.c.deleting, ~left.exists())
    if names is not None:
        checked = list(names)
        if not checked:
            return 0
        empty = empty.where(ALLOCATION_MAP.c.name.in_(checked))
    result: Any = session.execute(empty)
    return int(result.rowcount)


def last_generations(session: Session, instance_uuids: Sequence[str]) -> dict[str, int]:
    """Return the last generation of instances that have a history."""
    if not instance_uuids:
        return {}
    found = session.execute(
        select(HISTORY.c.instance_uuid, func.max(HISTORY.c.generation))
        .where(HISTORY.c.instance_uuid.in_(instance_uuids))
        .group_by(HISTORY.c.instance_uuid)
    )
    return {row[0]: row[1] for row in found}


def _maps_of(session: Session, instance_uuids: Iterable[str]) -> set[str]:
    column = ALLOCATION.c.map_name
    uuids = list(instance_uuids)
    if not uuids:
        return set()
    found = select(column).where(ALLOCATION.c.instance_uuid.in_(uuids), column.is_not(None))
    return set(session.scalars(found.distinct()))


def _lock_maps(session: Session, names: set[str]) -> dict[str, Fields]:
    if not names:
        return {}
    found = session.execute(
        select(ALLOCATION_MAP)
        .where(ALLOCATION_MAP.c.name.in_(sorted(names)))
        .order_by(ALLOCATION_MAP.c.name)
        .with_for_update()
    )
    return {row.name: row._asdict() for row in found}


def _lock_rows(session: Session, instance_uuids: set[str]) -> dict[str, Fields]:
    if not instance_uuids:
        return {}
    found = session.execute(
        select(ALLOCATION)
        .where(ALLOCATION.c.instance_uuid.in_(sorted(instance_uuids)))
        .order_by(ALLOCATION.c.instance_uuid)
        .with_for_update()
    )
    return {
        row.instance_uuid: {**row._asdict(), "generation": stored.integer(row.generation)}
        for row in found
    }
