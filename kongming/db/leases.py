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

"""Leases: what only one conductor at a time is to do."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Double, literal, or_, update
from sqlalchemy.orm import Session

from kongming.db.clock import Now
from kongming.db.database import Database
from kongming.db.models import LEASE
from kongming.db.upsert import add_if_missing

# The clocks of the nodes of a cluster differ a little.
_TOLERANCE_S = 5.0


class Leases:
    """The leases. Any thread may call any method.

    Every method raises ``DatabaseUnavailable`` if the database can't be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, name: str, holder: str, seconds: float, now: float | None = None) -> bool:
        """Take a lease, or renew one's own; tell whether one has it now.

        :param seconds: for how long; after that anybody may take it.
        :param now: by the database's clock if it is None, which all have in common.
        """
        moment: ColumnElement[float] = Now() if now is None else literal(now, Double())
        row = {"name": name, "holder": holder, "expires_at": moment + seconds}

        def work(session: Session) -> bool:
            end = LEASE.c.expires_at
            # Nobody takes it for longer: whoever did had a clock that was ahead.
            wrong = end > moment + (seconds + _TOLERANCE_S)
            free = or_(LEASE.c.holder == holder, end <= moment, wrong)
            taken: Any = session.execute(
                update(LEASE).where(LEASE.c.name == name, free).values(row)
            )
            return bool(taken.rowcount) or add_if_missing(session, LEASE, row)

        return self._database.write(work)
