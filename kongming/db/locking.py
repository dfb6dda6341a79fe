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

"""The order in which rows are locked: maps by name, then instances by UUID.

Whoever changes anything keeps to it, so that none waits for another that waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from kongming.allocation import stored
from kongming.db.database import Overtaken
from kongming.db.models import ALLOCATION, ALLOCATION_MAP, HISTORY, OUTCOME

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Locked:
    """Rows that nobody else can change until the transaction ends.

    :ivar maps: name → columns, of the table allocation_map.
    :ivar rows: UUID → columns, of the table allocation.
    """

    maps: dict[str, Fields]
    rows: dict[str, Fields]


def lock(session: Session, instance_uuids: Iterable[str], map_name: str | None = None) -> Locked:
    """Lock instances and the maps that they belong to.

    :param map_name: lock this map, too, and all instances that belong to it.
    :raises Overtaken: if an instance has just come into a map.
    """
    uuids = set(instance_uuids)
    names = _maps_of(session, uuids) | ({map_name} if map_name else set())
    maps = _lock_maps(session, names)
    if map_name in maps:
        # Nobody joins or leaves a map that is locked.
        members = select(ALLOCATION.c.instance_uuid).where(ALLOCATION.c.map_name == map_name)
        uuids |= set(session.scalars(members))
    rows = _lock_rows(session, uuids)
    # A map that is not there, though an instance belongs to it, is none.
    if not {row["map_name"] for row in rows.values()} <= {None, *names}:
        raise Overtaken
    return Locked(maps, rows)


def lock_alone(session: Session, instance_uuids: Iterable[str]) -> Locked:
    """Lock instances, but not their maps: for who changes neither maps nor who belongs to them."""
    return Locked({}, _lock_rows(session, set(instance_uuids)))


def bump(session: Session, names: Sequence[str], now: float) -> None:
    """Give maps their next generation."""
    if names:
        session.execute(
            update(ALLOCATION_MAP)
            .where(ALLOCATION_MAP.c.name.in_(names))
            .values(generation=ALLOCATION_MAP.c.generation + 1, updated_at=now)
        )


def remove(session: Session, instance_uuids: Sequence[str]) -> None:
    """Delete instances and what came of them."""
    if instance_uuids:
        for table in (ALLOCATION, OUTCOME):
            session.execute(delete(table).where(table.c.instance_uuid.in_(instance_uuids)))


def leave(session: Session, locked: Locked, instance_uuids: Sequence[str], now: float) -> None:
    """Delete instances, and with the last one of a map that is to go the map itself.

    The map's row is written whoever leaves it: nodes of a Galera cluster don't see each other's
    locks, and each would take the instance that leaves at another one for still being there.
    """
    remove(session, instance_uuids)
    left = {locked.rows[uuid]["map_name"] for uuid in instance_uuids}
    going = sorted(name for name in left & locked.maps.keys() if locked.maps[name]["deleting"])
    bump(session, going, now)
    remove_empty(session, going)


def remove_empty(session: Session, names: Iterable[str] | None = None) -> int:
    """Delete maps that are to go and that nothing belongs to any more; tell how many.

    :param names: of those to look at; None for all.
    """
    left = select(ALLOCATION.c.instance_uuid).where(ALLOCATION.c.map_name == ALLOCATION_MAP.c.name)
    empty = delete(ALLOCATION_MAP).where(ALLOCATION_MAP.c.deleting, ~left.exists())
    if names is not None:
        wanted = list(names)
        if not wanted:
            return 0
        empty = empty.where(ALLOCATION_MAP.c.name.in_(wanted))
    result: Any = session.execute(empty)
    return int(result.rowcount)


def last_generations(session: Session, instance_uuids: Sequence[str]) -> dict[str, int]:
    """Tell the last generation of instances that were wanted before."""
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
        row.instance_uuid: {**row._asdict(), "generation": stored.whole(row.generation)}
        for row in found
    }
