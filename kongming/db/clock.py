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

"""The database's own clock, which all its clients share."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Double
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class Now(FunctionElement[float]):
    """The seconds since the epoch, UTC, as an expression in SQL."""

    inherit_cache = True
    type = Double()


@compiles(Now)
def _of_sqlite(_element: Now, _compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(Now, "mysql", "mariadb")
def _of_mysql(_element: Now, _compiler: Any, **_: Any) -> str:
    # A literal time would be ambiguous in the hour that occurs twice.
    return "UNIX_TIMESTAMP()"


@compiles(Now, "postgresql")
def _of_postgresql(_element: Now, _compiler: Any, **_: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"
