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

"""The compute hosts: the heartbeats and snapshots of their executors."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Mapping
import json
from typing import Any

from sqlalchemy import delete, null, select, update
from sqlalchemy.orm import Session

from kongming.allocation import stored
from kongming.db import rows
from kongming.db.database import Database
from kongming.db.models import HOST, WORD_LENGTH
from kongming.db.reports import LATE_S
from kongming.db.upsert import upsert
from kongming.db.values import Host
from kongming.rpc import view as host_snapshot

_HEARTBEAT = ("heartbeat_at", "started_at", "version", "interval_s")


class Hosts:
    """The compute hosts. Any thread may call any method.

    Every method raises ``DatabaseUnavailable`` if the database can't be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def heartbeat(
        self, name: str, *, started_at: float, version: str, interval_s: float, now: float
    ) -> str:
        """Store a heartbeat of a host's executor.

        :param interval_s: the time between heartbeats in seconds.
        :returns: the digest of the stored snapshot; empty if there is none.
        """
        row = {
            "name": name,
            "heartbeat_at": now,
            "started_at": started_at,
            "version": rows.clean(version, WORD_LENGTH),
            "interval_s": interval_s,
            "snapshot": None,
            "snapshot_digest": "",
            "snapshot_at": None,
            "guests": 0,
            "violations": 0,
        }

        def work(session: Session) -> str:
            stored_row = select(HOST.c.heartbeat_at, HOST.c.snapshot_digest).where(
                HOST.c.name == name
            )
            heartbeat_at, digest = session.execute(stored_row).one_or_none() or (0.0, "")
            # A conductor that was suspended may pass on an old heartbeat.
            if not 0.0 < stored.moment(heartbeat_at) - now <= LATE_S:
                upsert(session, HOST, [row], _HEARTBEAT)
            return digest or ""

        return self._database.write(work)

    def keep_snapshot(
        self, name: str, snapshot: Mapping[str, Any], digest: str, now: float
    ) -> None:
        """Store the snapshot of a host that has sent a heartbeat."""
        row = {
            "snapshot": rows.clean(json.dumps(snapshot)),
            "snapshot_digest": digest,
            "snapshot_at": now,
            "guests": len(snapshot.get("guests", ())),
            "violations": len(snapshot.get("violations", ())),
        }
        self._database.write(
            lambda session: session.execute(update(HOST).where(HOST.c.name == name).values(row))
        )

    def get(self, name: str) -> Host | None:
        """Return a host; None if it is unknown."""
        with self._database.reader() as session:
            row = session.execute(select(HOST).where(HOST.c.name == name)).one_or_none()
        return None if row is None else _host(row)

    def list(
        self, limit: int | None = None, marker: str | None = None, *, snapshots: bool = True
    ) -> builtins.list[Host]:
        """Return the hosts after ``marker``, ordered by name.

        :param snapshots: whether to include their snapshots, which are large.
        """
        query: rows.AnySelect = select(*_columns(snapshots=snapshots))
        if marker is not None:
            query = query.where(HOST.c.name > marker)
        with self._database.reader() as session:
            found = session.execute(query.order_by(HOST.c.name).limit(limit)).all()
        return [_host(row) for row in found]

    def named(self, names: Iterable[str]) -> builtins.list[Host]:
        """Return the hosts of some names, without their snapshots."""
        query: rows.AnySelect = select(*_columns(snapshots=False))
        query = query.where(HOST.c.name.in_(list(names)))
        with self._database.reader() as session:
            found = session.execute(query).all()
        return [_host(row) for row in found]

    def running(self) -> Iterator[tuple[str, builtins.list[str]]]:
        """Yield each host with the guests in its last snapshot."""
        query = select(HOST.c.name, HOST.c.snapshot).where(HOST.c.snapshot.is_not(None))
        with self._database.reader() as session:
            found = session.execute(query.order_by(HOST.c.name)).all()
        for name, text in found:
            yield name, host_snapshot.guests(text)

    def forget(self, name: str) -> None:
        """Delete a host; its next heartbeat adds it again."""
        self._database.write(
            lambda session: session.execute(delete(HOST).where(HOST.c.name == name))
        )


def _columns(*, snapshots: bool) -> builtins.list[Any]:
    if snapshots:
        return [*HOST.c]
    return [*(column for column in HOST.c if column.name != "snapshot"), null().label("snapshot")]


def _host(row: rows.AnyRow) -> Host:
    fields = row._asdict()
    return Host(
        snapshot=host_snapshot.load(fields.pop("snapshot")),
        heartbeat_at=stored.moment(fields.pop("heartbeat_at")),
        started_at=stored.moment(fields.pop("started_at")),
        snapshot_at=stored.maybe_moment(fields.pop("snapshot_at")),
        interval_s=stored.moment(fields.pop("interval_s")),
        **fields,
    )
