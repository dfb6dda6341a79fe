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

"""The compute hosts: when their executors were last heard of, and what they told."""

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
from kongming.rpc import view as host_view

_SEEN = ("seen_at", "started_at", "version", "interval_s")


class Hosts:
    """The compute hosts. Any thread may call any method.

    Every method raises ``DatabaseUnavailable`` if the database can't be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def see(
        self, name: str, *, started_at: float, version: str, interval_s: float, now: float
    ) -> str:
        """Keep that a host's executor is there.

        :param interval_s: how often it says so, in seconds.
        :returns: the digest of the view that is kept; empty if none is.
        """
        row = {
            "name": name,
            "seen_at": now,
            "started_at": started_at,
            "version": rows.clean(version, WORD_LENGTH),
            "interval_s": interval_s,
            "view": None,
            "view_digest": "",
            "view_at": None,
            "guests": 0,
            "violations": 0,
        }

        def work(session: Session) -> str:
            known = select(HOST.c.seen_at, HOST.c.view_digest).where(HOST.c.name == name)
            seen_at, digest = session.execute(known).one_or_none() or (0.0, "")
            # A conductor that was stopped for a while may say it late.
            if not 0.0 < stored.moment(seen_at) - now <= LATE_S:
                upsert(session, HOST, [row], _SEEN)
            return digest or ""

        return self._database.write(work)

    def keep_view(self, name: str, view: Mapping[str, Any], digest: str, now: float) -> None:
        """Keep what a host looks like; one that was never seen is not made."""
        told = {
            "view": rows.clean(json.dumps(view)),
            "view_digest": digest,
            "view_at": now,
            "guests": len(view.get("guests", ())),
            "violations": len(view.get("violations", ())),
        }
        self._database.write(
            lambda session: session.execute(update(HOST).where(HOST.c.name == name).values(told))
        )

    def get(self, name: str) -> Host | None:
        """Read what is known of a host."""
        with self._database.reader() as session:
            row = session.execute(select(HOST).where(HOST.c.name == name)).one_or_none()
        return None if row is None else _host(row)

    def list(
        self, limit: int | None = None, marker: str | None = None, *, views: bool = True
    ) -> builtins.list[Host]:
        """Read what is known of the hosts, ordered by name, those after ``marker``.

        :param views: whether with their views, which are large.
        """
        query: rows.AnySelect = select(*_columns(views=views))
        if marker is not None:
            query = query.where(HOST.c.name > marker)
        with self._database.reader() as session:
            found = session.execute(query.order_by(HOST.c.name).limit(limit)).all()
        return [_host(row) for row in found]

    def named(self, names: Iterable[str]) -> builtins.list[Host]:
        """Read what is known of some hosts, without their views."""
        query: rows.AnySelect = select(*_columns(views=False))
        query = query.where(HOST.c.name.in_(list(names)))
        with self._database.reader() as session:
            found = session.execute(query).all()
        return [_host(row) for row in found]

    def running(self) -> Iterator[tuple[str, builtins.list[str]]]:
        """Read which guests each host had when it last told what it looks like."""
        query = select(HOST.c.name, HOST.c.view).where(HOST.c.view.is_not(None))
        with self._database.reader() as session:
            found = session.execute(query.order_by(HOST.c.name)).all()
        for name, text in found:
            yield name, host_view.guests(text)

    def forget(self, name: str) -> None:
        """Forget a host; if it is still there, it is seen again."""
        self._database.write(
            lambda session: session.execute(delete(HOST).where(HOST.c.name == name))
        )


def _columns(*, views: bool) -> builtins.list[Any]:
    if views:
        return [*HOST.c]
    return [*(column for column in HOST.c if column.name != "view"), null().label("view")]


def _host(row: rows.AnyRow) -> Host:
    fields = row._asdict()
    return Host(
        view=host_view.load(fields.pop("view")),
        seen_at=stored.moment(fields.pop("seen_at")),
        started_at=stored.moment(fields.pop("started_at")),
        view_at=stored.maybe_moment(fields.pop("view_at")),
        interval_s=stored.moment(fields.pop("interval_s")),
        **fields,
    )
