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

"""Deletion of old history, and of hosts that no longer send heartbeats."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ColumnElement, delete, select
from sqlalchemy.orm import Session

from kongming.db.database import Database
from kongming.db.models import HISTORY, HOST

# Rows in a transaction: other transactions should not wait for all of them.
_CHUNK = 5_000


def purge(database: Database, before: float) -> dict[str, int]:
    """Delete the history before a time, and hosts without a heartbeat since then.

    :param before: in seconds since the epoch.
    :returns: the number of deleted entries of ``history``, and of ``hosts``.
    :raises DatabaseUnavailable: if the database can't be used.
    """
    return {
        "history": _forget(database, HISTORY.c.id, HISTORY.c.changed_at < before),
        "hosts": _forget(database, HOST.c.name, HOST.c.heartbeat_at < before),
    }


def _forget(database: Database, key: Column[Any], old: ColumnElement[bool]) -> int:
    def work(session: Session) -> int:
        found = list(session.scalars(select(key).where(old).limit(_CHUNK)))
        if found:
            session.execute(delete(key.table).where(key.in_(found), old))
        return len(found)

    total = 0
    while count := database.write(work):
        total += count
    return total
