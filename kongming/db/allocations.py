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

"""The desired allocation and the outcome of each instance, and the history of both."""

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
from kongming.db.requests import Changes, Requester
from kongming.db.values import Change, Entry, Location, Map, Transition
from kongming.rpc.messages import Report

LOG = logging.getLogger(__name__)

# Databases limit the parameters of a statement.
_CHUNK = 5_000


class Allocations:
    """The desired allocations and allocation maps. Any thread may call any method.

    Every method raises ``DatabaseUnavailable`` if the database can't be used. A ``generation`` is
    the one that the caller expects: None for any, 0 for "does not exist yet". If the current one
    differs, ``GenerationConflict`` is raised.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, instance_uuid: str) -> Entry | None:
        """Return the entry of an instance; None if it has none."""
        return self.desired([instance_uuid]).get(instance_uuid)

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
        """Return entries ordered by UUID, read in one statement. None as a filter matches all.

        :param host: the host that has the instance, or that reported it last if its host is
            unknown.
        :param status: as in :attr:`Entry.status`.
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
        requested_by: str,
        request_id: str,
    ) -> tuple[Entry, bool]:
        """Set the desired allocation of an instance; an equal one changes nothing.

        :returns: the entry, and whether there was no desired allocation before.
        :raises GenerationConflict: if another client has changed it.
        """
        requested = rows.dump(allocation)

        def work(session: Session) -> tuple[Entry, bool]:
            requester = Requester(requested_by, request_id, time.time())
            created = requests.put(session, instance_uuid, requested, generation, requester)
            (row,) = session.execute(_of(instance_uuid))
            return rows.entry(row), created

        return self._database.write(work)

    def delete(
        self, instance_uuid: str, *, generation: int | None, requested_by: str, request_id: str
    ) -> Entry | None:
        """Release an instance: its host restores its baseline.

        :returns: the entry until that has happened; None if no host can have the instance.
        :raises AllocationUnknown: if the instance has no allocation.
        :raises GenerationConflict: if another client has changed it.
        """

        def work(session: Session) -> Entry | None:
            requester = Requester(requested_by, request_id, time.time())
            requests.release(session, instance_uuid, generation, requester)
            row = session.execute(_of(instance_uuid)).one_or_none()
            return None if row is None else rows.entry(row)

        return self._database.write(work)

    def put_map(
        self,
        name: str,
        allocations: Mapping[str, Allocation],
        *,
        generation: int | None,
        requested_by: str,
        request_id: str,
    ) -> tuple[Map, bool, builtins.list[str]]:
        """Set all allocations of a map; release the instances that are no longer in it.

        :returns: the map, whether it is new, and the UUIDs of the instances whose desired
            allocation changed.
        :raises GenerationConflict: if another client has changed the map.
        :raises MapConflict: if an instance belongs to another map.
        """

        def work(session: Session) -> tuple[Map, bool, builtins.list[str]]:
            requester = Requester(requested_by, request_id, time.time())
            locked = locking.lock(session, allocations, name)
            there = locked.maps.get(name)
            created = there is None or there["deleting"]
            requests.check(generation, there, ending=created, what=f"the allocation map {name}")
            if there is None:
                session.execute(insert(ALLOCATION_MAP).values(maps.new(name, requester.now)))
            changes = Changes(requester)
            changed = requests.request_all(session, changes, name, allocations, locked.rows)
            dropped = [row for uuid, row in locked.rows.items() if uuid not in allocations]
            changed += requests.release_all(session, changes, dropped, None)
            changes.write(session)
            if there is not None and (created or changes):
                maps.change(session, name, there["generation"] + 1, requester.now, deleting=False)
            locking.remove_empty_maps(session, locked.maps)
            (row,) = session.execute(maps.select_all().where(ALLOCATION_MAP.c.name == name))
            return maps.read(row), created, changed

        return self._database.write(work)

    def check_map(
        self, name: str, instance_uuids: Iterable[str], *, generation: int | None
    ) -> builtins.list[str]:
        """Check whether :meth:`put_map` would set a map now, without setting it.

        It raises the errors of :meth:`put_map`.

        :returns: the UUIDs of the instances that it would release.
        """
        with self._database.reader() as session:
            query = select(ALLOCATION_MAP).where(ALLOCATION_MAP.c.name == name)
            row = session.execute(query).one_or_none()
        there = None if row is None else row._asdict()
        ending = there is None or bool(there["deleting"])
        requests.check(generation, there, ending=ending, what=f"the allocation map {name}")
        kept = set(instance_uuids)
        for entry in self.desired(kept).values():
            if entry.allocation is not None:
                requests.check_map(entry.instance_uuid, entry.map_name, name)
        return [
            entry.instance_uuid
            for entry in self.list(map_name=name)
            if entry.allocation is not None and entry.instance_uuid not in kept
        ]

    def get_map(self, name: str) -> Map | None:
        """Return a map; None if it does not exist."""
        with self._database.reader() as session:
            row = session.execute(
                maps.select_all().where(ALLOCATION_MAP.c.name == name)
            ).one_or_none()
        return None if row is None else maps.read(row)

    def maps(self, limit: int | None = None, marker: str | None = None) -> builtins.list[Map]:
        """Return the maps after ``marker``, ordered by name."""
        with self._database.reader() as session:
            found = session.execute(_page(maps.select_all(), ALLOCATION_MAP.c.name, limit, marker))
            return [maps.read(row) for row in found]

    def delete_map(
        self, name: str, *, generation: int | None, requested_by: str, request_id: str
    ) -> builtins.list[str]:
        """Release all instances of a map. The map is deleted with the last of them.

        :returns: the UUIDs of the instances that are being released.
        :raises MapUnknown: if the map does not exist.
        :raises GenerationConflict: if another client has changed it.
        """

        def work(session: Session) -> builtins.list[str]:
            requester = Requester(requested_by, request_id, time.time())
            locked = locking.lock(session, (), name)
            there = locked.maps.get(name)
            if there is None:
                raise exception.MapUnknown(f"no allocation map {name} exists: check its name")
            requests.check(generation, there, ending=False, what=f"the allocation map {name}")
            changes = Changes(requester)
            changed = requests.release_all(session, changes, locked.rows.values(), name)
            changes.write(session)
            if not there["deleting"]:
                maps.change(session, name, there["generation"] + 1, requester.now, deleting=True)
            locking.remove_empty_maps(session, [name])
            return changed

        return self._database.write(work)

    def history(
        self, instance_uuid: str, *, limit: int | None = None, marker: int | None = None
    ) -> builtins.list[Change]:
        """Return the requests for an instance with their outcomes, the oldest first.

        :param marker: the id of the entry after which to begin.
        """
        query = select(HISTORY).where(HISTORY.c.instance_uuid == instance_uuid)
        with self._database.reader() as session:
            found = session.execute(_page(query, HISTORY.c.id, limit, marker))
            return [rows.change(row) for row in found]

    def desired(self, instance_uuids: Iterable[str]) -> dict[str, Entry]:
        """Return the entries of instances by UUID, read in one statement."""
        query = rows.entries().where(ALLOCATION.c.instance_uuid.in_(list(instance_uuids)))
        return {entry.instance_uuid: entry for entry in self._entries(query)}

    def desired_on(self, host: str) -> dict[str, Entry]:
        """Return the entries of all instances that a host has or reported last, by UUID."""
        return {entry.instance_uuid: entry for entry in self._entries(rows.entries_on(host))}

    def report(
        self, host: str, reports_: Sequence[Report], now: float, *, nova: bool = False
    ) -> builtins.list[Transition]:
        """Store the outcomes that a host reports; return the changes of statuses.

        A report changes nothing if its generation is not the current one, or if the instance has
        no entry or is on another host.

        :param host: empty if a conductor reports, for instances that are on no host.
        :param nova: whether Nova decides which host has an instance; otherwise the first host that
            reports it has it.
        """
        received = {
            each.instance_uuid: reports.ReceivedReport(host, each, now, nova) for each in reports_
        }
        if not received:
            return []
        with self._database.reader() as session:
            changed = reports.has_changes(session, received)
        return self._store(received) if changed else []

    def _store(self, received: Mapping[str, reports.ReceivedReport]) -> builtins.list[Transition]:
        """Store reports; a report that the database refuses does not affect the others."""
        try:
            return self._database.write(lambda session: reports.store(session, received))
        except exception.DatabaseFault as fault:
            uuids = sorted(received)
            if len(uuids) == 1:
                LOG.error("The report of instance %s can't be stored: %s", uuids[0], fault)
                return []
            middle = len(uuids) // 2
            parts = (uuids[:middle], uuids[middle:])
            return [
                transition
                for part in parts
                for transition in self._store({uuid: received[uuid] for uuid in part})
            ]

    def locate(self, found: Mapping[str, Location]) -> builtins.list[str]:
        """Store the project and host of instances; return those whose host changed."""
        moved: builtins.list[str] = []
        for part in _parts(found):
            of_part = {uuid: found[uuid] for uuid in part}
            moved += self._database.write(functools.partial(reports.locate, found=of_part))
        return moved

    def claim(
        self, host: str, instance_uuids: Iterable[str], lapsed: Container[str]
    ) -> builtins.list[str]:
        """Set the host of instances that a host claims; return those that it obtained.

        It obtains an instance that has no host, that its host has reported as absent, or whose
        host has lapsed.

        :param lapsed: hosts that have lost their instances.
        """
        won: builtins.list[str] = []
        for part in _parts(instance_uuids):
            work = functools.partial(reports.claim, host=host, instance_uuids=part, lapsed=lapsed)
            won += self._database.write(work)
        return won

    def forget(self, instance_uuids: Iterable[str], now: float) -> None:
        """Delete instances whose servers were deleted in Nova; only their history stays."""
        for part in _parts(instance_uuids):
            self._database.write(functools.partial(reports.forget, instance_uuids=part, now=now))

    def sweep(self) -> int:
        """Delete the maps that are being deleted and have no instances; return their number."""
        return self._database.write(locking.remove_empty_maps)

    def without_project(self) -> builtins.list[str]:
        """Return the instances whose project is not known yet."""
        return self._uuids(
            select(ALLOCATION.c.instance_uuid).where(ALLOCATION.c.project_id.is_(None))
        )

    def instance_uuids(self) -> builtins.list[str]:
        """Return all instances that have a desired allocation or are being released."""
        return self._uuids(select(ALLOCATION.c.instance_uuid))

    def counts(self) -> dict[str, int]:
        """Return the number of instances by status."""
        with self._database.reader() as session:
            return {row.status: row.number for row in session.execute(rows.counts())}

    def without_host(self, limit: int) -> builtins.list[str]:
        """Return instances that are on no known host, and have no outcome that says so yet."""
        return self._uuids(rows.without_host().limit(limit))

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
