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

"""Leases: each task is run by one conductor at a time."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Double, literal, or_, update
from sqlalchemy.orm import Session

from kongming.db.clock import Now
from kongming.db.database import Database
from kongming.db.models import LEASE
from kongming.db.upsert import add_if_missing

# The tolerated difference between the clocks of a cluster's nodes.
_TOLERANCE_S = 5.0


class Leases:
    """The leases. Any thread may call any method.

    Every method raises ``DatabaseUnavailable`` if the database can't be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def acquire(self, name: str, holder: str, seconds: float, now: float | None = None) -> bool:
        """Acquire or renew a lease; return whether the caller holds it now.

        :param seconds: how long it is valid.
        :param now: the time; by default that of the database's clock, which all conductors share.
        """
        moment: ColumnElement[float] = Now() if now is None else literal(now, Double())
        row = {"name": name, "holder": holder, "expires_at": moment + seconds}

        def work(session: Session) -> bool:
            end = LEASE.c.expires_at
            # The lease ends later than any lease can: its holder's clock was ahead.
            wrong = end > moment + (seconds + _TOLERANCE_S)
            free = or_(LEASE.c.holder == holder, end <= moment, wrong)
            taken: Any = session.execute(
                update(LEASE).where(LEASE.c.name == name, free).values(row)
            )
            return bool(taken.rowcount) or add_if_missing(session, LEASE, row)

        return self._database.write(work)
