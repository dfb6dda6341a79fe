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

"""The rows of allocation maps."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from kongming.allocation import stored
from kongming.db.models import ALLOCATION, ALLOCATION_MAP
from kongming.db.rows import AnyRow, AnySelect
from kongming.db.values import Map


def select_all() -> AnySelect:
    """Select all maps with the number of their instances; :func:`read` reads a row."""
    members = (
        select(func.count())
        .where(ALLOCATION.c.map_name == ALLOCATION_MAP.c.name)
        .scalar_subquery()
    )
    return select(*ALLOCATION_MAP.c, members.label("instances"))


def read(row: AnyRow) -> Map:
    """Convert a row of :func:`select_all`."""
    fields = row._asdict()
    return Map(
        name=fields["name"],
        generation=stored.integer(fields["generation"]),
        deleting=bool(fields["deleting"]),
        created_at=stored.moment(fields["created_at"]),
        updated_at=stored.moment(fields["updated_at"]),
        instances=fields["instances"],
    )


def new(name: str, now: float) -> dict[str, Any]:
    """Return the row of a new map."""
    return {
        "name": name,
        "generation": 1,
        "deleting": False,
        "created_at": now,
        "updated_at": now,
    }


def change(session: Session, name: str, generation: int, now: float, *, deleting: bool) -> None:
    """Update the generation of a map.

    :param deleting: whether to delete it with its last instance.
    """
    session.execute(
        update(ALLOCATION_MAP)
        .where(ALLOCATION_MAP.c.name == name)
        .values(generation=generation, updated_at=now, deleting=deleting)
    )
