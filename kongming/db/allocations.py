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

"""What is wanted for each instance, what came of it, and the history of both."""

from __future__ import annotations

import builtins
from collections.abc import Container, Iterable, Mapping, Sequence
import functools
import logging
import time
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from kongming import exception
from kongming.allocation.allocation import Allocation
from kongming.db import locking, maps, reports, requests, rows
from kongming.db.database import Database
from kongming.db.models import ALLOCATION, ALLOCATION_MAP, HISTORY
from kongming.db.requests import Asker, Changes
from kongming.db.values import Change, Entry, Location, Map
from kongming.rpc.messages import Report

LOG = logging.getLogger(__name__)

# So many at once: what a statement may hold ends somewhere.
_CHUNK = 5_000


class Allocations:
    """What is wanted. Any thread may call any method.

    Every method raises ``DatabaseUnavailable`` if the database can't be used.
    A ``generation`` is the one that the caller believes in: None for any, 0
    for "there is none"; if it is another one, ``GenerationConflict`` is raised.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, instance_uuid: str) -> Entry | None:
        """Read what is wanted for an instance."""
        return self.wanted([instance_uuid]).get(instance_uuid)

    def list(
        self,
        *,
        host: str | None = None,
        project_id: str | None = None,
        status: str | None = None,
        map_name: str | None = None,
        limit: int | None = None,
        marker: str | None = None,
    ) -> builtins.list[Entry]:
        """Read what is wanted, ordered by UUID, in one statement; None: whatever it is.

        :param host: where the instance is, or who spoke of it if that is not known.
        :param status: as :attr:`Entry.status` has it.
        :param marker: the UUID after which to begin.
        """
        query = rows.entries()
        if host is not None:
            query = rows.entries_on(host).where(rows.is_at(host))
        if project_id is not None:
            query = query.where(ALLOCATION.c.project_id == project_id)
        if map_name is not None:
            query = query.where(ALLOCATION.c.map_name == map_name)
        if status is not None:
            query = query.where(rows.has_status(status))
        return self._entries(_page(query, ALLOCATION.c.instance_uuid, limit, marker))

    def put(
        self,
        instance_uuid: str,
        allocation: Allocation,
        *,
        generation: int | None,
        asked_by: str,
        request_id: str,
    ) -> tuple[Entry, bool]:
        """Want an allocation for an instance; the same one again changes nothing.

        :returns: what is wanted now, and whether nothing was before.
        :raises GenerationConflict: if somebody else has changed it.
        """
        asked = rows.dump(allocation)

        def work(session: Session) -> tuple[Entry, bool]:
            asker = Asker(asked_by, request_id, time.time())
            created = requests.put(session, instance_uuid, asked, generation, asker)
            (row,) = session.execute(_of(instance_uuid))
            return rows.entry(row), created

        return self._database.write(work)

    def delete(
        self, instance_uuid: str, *, generation: int | None, asked_by: str, request_id: str
    ) -> Entry | None:
        """Want nothing any more for an instance: its host brings it back to its baseline.

        :returns: what is left until then; None if no host can have it.
        :raises AllocationUnknown: if nothing was wanted.
        :raises GenerationConflict: if somebody else has changed it.
        """

        def work(session: Session) -> Entry | None:
            asker = Asker(asked_by, request_id, time.time())
            requests.release(session, instance_uuid, generation, asker)
            row = session.execute(_of(instance_uuid)).one_or_none()
            return None if row is None else rows.entry(row)

        return self._database.write(work)

    def put_map(
        self,
        name: str,
        allocations: Mapping[str, Allocation],
        *,
        generation: int | None,
        asked_by: str,
        request_id: str,
    ) -> tuple[Map, bool, builtins.list[str]]:
        """Want exactly what a map says; what belonged to it and does not any more is released.

        :returns: the map, whether it is new, and the UUIDs of the instances
            for which something else is wanted now.
        :raises GenerationConflict: if somebody else has changed the map.
        :raises MapConflict: if an instance belongs to another map.
        """

        def work(session: Session) -> tuple[Map, bool, builtins.list[str]]:
            asker = Asker(asked_by, request_id, time.time())
            locked = locking.lock(session, allocations, name)
            there = locked.maps.get(name)
            created = there is None or there["deleting"]
            requests.check(generation, there, ending=created, what=f"the allocation map {name}")
            if there is None:
                session.execute(insert(ALLOCATION_MAP).values(maps.new(name, asker.now)))
            changes = Changes(asker)
            changed = requests.want_all(session, changes, name, allocations, locked.rows)
            dropped = [row for uuid, row in locked.rows.items() if uuid not in allocations]
            changed += requests.release_all(session, changes, dropped, None)
            changes.write(session)
            if there is not None and (created or changes):
                maps.change(session, name, there["generation"] + 1, asker.now, deleting=False)
            locking.remove_empty(session, locked.maps)
            (row,) = session.execute(maps.select_all().where(ALLOCATION_MAP.c.name == name))
            return maps.read(row), created, changed

        return self._database.write(work)

    def get_map(self, name: str) -> Map | None:
        """Read a map."""
        with self._database.reader() as session:
            row = session.execute(
                maps.select_all().where(ALLOCATION_MAP.c.name == name)
            ).one_or_none()
        return None if row is None else maps.read(row)

    def maps(self, limit: int | None = None, marker: str | None = None) -> builtins.list[Map]:
        """Read the maps, ordered by name, those after ``marker``."""
        with self._database.reader() as session:
            found = session.execute(_page(maps.select_all(), ALLOCATION_MAP.c.name, limit, marker))
            return [maps.read(row) for row in found]

    def delete_map(
        self, name: str, *, generation: int | None, asked_by: str, request_id: str
    ) -> builtins.list[str]:
        """Want nothing any more for all that belongs to a map, and then no map.

        It stays until the last instance is released.

        :returns: the UUIDs of the instances for which nothing is wanted any more.
        :raises MapUnknown: if there is none.
        :raises GenerationConflict: if somebody else has changed it.
        """

        def work(session: Session) -> builtins.list[str]:
            asker = Asker(asked_by, request_id, time.time())
            locked = locking.lock(session, (), name)
            there = locked.maps.get(name)
            if there is None:
                raise exception.MapUnknown(f"no allocation map {name} exists: check its name")
            requests.check(generation, there, ending=False, what=f"the allocation map {name}")
            changes = Changes(asker)
            changed = requests.release_all(session, changes, locked.rows.values(), name)
            changes.write(session)
            if not there["deleting"]:
                maps.change(session, name, there["generation"] + 1, asker.now, deleting=True)
            locking.remove_empty(session, [name])
            return changed

        return self._database.write(work)

    def history(
        self, instance_uuid: str, *, limit: int | None = None, marker: int | None = None
    ) -> builtins.list[Change]:
        """Read what was wanted for an instance and what came of it, the oldest first.

        :param marker: the id of the entry after which to begin.
        """
        query = select(HISTORY).where(HISTORY.c.instance_uuid == instance_uuid)
        with self._database.reader() as session:
            found = session.execute(_page(query, HISTORY.c.id, limit, marker))
            return [rows.change(row) for row in found]

    def wanted(self, instance_uuids: Iterable[str]) -> dict[str, Entry]:
        """Read what is wanted for instances, by UUID, in one statement."""
        query = rows.entries().where(ALLOCATION.c.instance_uuid.in_(list(instance_uuids)))
        return {entry.instance_uuid: entry for entry in self._entries(query)}

    def wanted_on(self, host: str) -> dict[str, Entry]:
        """Read what is wanted for all instances that a host has or last spoke of, by UUID."""
        return {entry.instance_uuid: entry for entry in self._entries(rows.entries_on(host))}

    def report(
        self, host: str, reports_: Sequence[Report], now: float, *, nova: bool = False
    ) -> None:
        """Keep what a host says came of what is wanted.

        What it says of another generation than the one that is wanted, or of
        instances for which nothing is wanted, changes nothing; neither does
        what it says of instances that another host holds.

        :param host: empty if a conductor says it, as of instances that no host holds.
        :param nova: whether Nova says which host holds an instance; else the first one does
            that speaks of it.
        """
        said = {each.instance_uuid: reports.Said(host, each, now, nova) for each in reports_}
        if not said:
            return
        with self._database.reader() as session:
            news = reports.is_news(session, said)
        if news:
            self._keep(said)

    def _keep(self, said: Mapping[str, reports.Said]) -> None:
        """Keep reports; what the database refuses fails alone."""
        try:
            self._database.write(lambda session: reports.keep(session, said))
        except exception.DatabaseFault as fault:
            uuids = sorted(said)
            if len(uuids) == 1:
                LOG.error("The report of instance %s can't be stored: %s", uuids[0], fault)
                return
            middle = len(uuids) // 2
            for part in (uuids[:middle], uuids[middle:]):
                self._keep({uuid: said[uuid] for uuid in part})

    def locate(self, found: Mapping[str, Location]) -> builtins.list[str]:
        """Keep whose instances are, and where; give those that are elsewhere now."""
        moved: builtins.list[str] = []
        for part in _parts(found):
            of_part = {uuid: found[uuid] for uuid in part}
            moved += self._database.write(functools.partial(reports.locate, found=of_part))
        return moved

    def claim(
        self, host: str, instance_uuids: Iterable[str], lapsed: Container[str]
    ) -> builtins.list[str]:
        """Note instances as being on a host that claims them; give those that it won.

        It wins what no host has, what its host reported as absent, and what is
        with hosts that have nothing any more.

        :param lapsed: those hosts.
        """
        won: builtins.list[str] = []
        for part in _parts(instance_uuids):
            work = functools.partial(reports.claim, host=host, instance_uuids=part, lapsed=lapsed)
            won += self._database.write(work)
        return won

    def gone(self, instance_uuids: Iterable[str], now: float) -> None:
        """Forget instances whose servers were deleted in Nova, but for their history."""
        for part in _parts(instance_uuids):
            self._database.write(functools.partial(reports.end, instance_uuids=part, now=now))

    def sweep(self) -> int:
        """Delete the maps that are to go and that nothing belongs to; tell how many."""
        return self._database.write(locking.remove_empty)

    def unlocated(self) -> builtins.list[str]:
        """Give those of which nobody has said yet whose they are."""
        return self._uuids(
            select(ALLOCATION.c.instance_uuid).where(ALLOCATION.c.project_id.is_(None))
        )

    def known(self) -> builtins.list[str]:
        """Give all for which anything is wanted, or to be released."""
        return self._uuids(select(ALLOCATION.c.instance_uuid))

    def counts(self) -> dict[str, int]:
        """Count the instances by status."""
        with self._database.reader() as session:
            return {row.status: row.number for row in session.execute(rows.counts())}

    def nowhere(self, limit: int) -> builtins.list[str]:
        """Give those that are on no host that is known of, and of which nobody has said so yet."""
        return self._uuids(rows.nowhere().limit(limit))

    def _entries(self, query: rows.AnySelect) -> builtins.list[Entry]:
        with self._database.reader() as session:
            found = session.execute(query).all()
        return [rows.entry(row) for row in found]

    def _uuids(self, query: rows.AnySelect) -> builtins.list[str]:
        with self._database.reader() as session:
            return [*session.scalars(query.order_by(ALLOCATION.c.instance_uuid))]


def _of(instance_uuid: str) -> rows.AnySelect:
    return rows.entries().where(ALLOCATION.c.instance_uuid == instance_uuid)


def _page(query: rows.AnySelect, key: Any, limit: int | None, marker: Any) -> rows.AnySelect:
    if marker is not None:
        query = query.where(key > marker)
    return query.order_by(key).limit(limit)


def _parts(instance_uuids: Iterable[str]) -> Iterable[builtins.list[str]]:
    uuids = sorted(instance_uuids)
    return (uuids[first : first + _CHUNK] for first in range(0, len(uuids), _CHUNK))
