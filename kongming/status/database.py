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
"""Check whether the database of the API is available, with the tables of this version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from oslo_config import cfg
from oslo_upgradecheck.upgradecheck import Result
from sqlalchemy import make_url

from kongming.db.database import Database
from kongming.status.finding import bad, good


def check(conf: cfg.ConfigOpts) -> Iterator[Result]:
    """Check the database's version, without creating or migrating it."""
    # Connecting would create the file.
    url = make_url(conf.database.connection)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        yield bad(
            f"{url.database} does not exist: run 'kongming-manage db sync', or set [database] "
            "connection"
        )
        return
    database = Database(conf)
    database.check_schema()
    yield good(f"{database.place} responds, its tables have the required version")
