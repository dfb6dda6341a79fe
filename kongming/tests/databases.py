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

"""Databases for tests: with their tables, and what is put into them."""

from __future__ import annotations

from contextlib import closing
import functools
from pathlib import Path
from tempfile import TemporaryDirectory

from oslo_config import cfg

from kongming import conf as kongming_conf
from kongming.allocation import metadata
from kongming.allocation.allocation import Allocation
from kongming.allocation.statuses import Status
from kongming.db import migration
from kongming.db.database import Database
from kongming.rpc.messages import Report

BY = {"requested_by": "mano", "request_id": "req-1"}


def configuration(url: str) -> cfg.ConfigOpts:
    """The options of somebody who uses the database at `url`."""
    conf = cfg.ConfigOpts()
    kongming_conf.register_opts(conf)
    conf([], default_config_files=[], default_config_dirs=[])
    conf.set_override("connection", url, group="database")
    return conf


def database(url: str) -> Database:
    """The database at `url`, with its tables; in SQLite's case they are made once."""
    made = Database(configuration(url))
    if url.startswith("sqlite:///"):
        empty(Path(url.removeprefix("sqlite:///")))
    else:
        migration.sync(made)
    return made


def empty(path: Path) -> None:
    """Make the SQLite database at `path`, which nobody uses, with empty tables."""
    for former in path.parent.glob(f"{path.name}*"):
        former.unlink()
    path.write_bytes(_tables())


@functools.cache
def _tables() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tables"
        with closing(Database(configuration(f"sqlite:///{path}"))) as made:
            migration.sync(made)
        return path.read_bytes()


def instance(number: int = 1) -> str:
    """The UUID of an instance."""
    return f"5a6e9b1e-0000-4000-8000-{number:012}"


def asking(value: str | int) -> Allocation:
    """An allocation that pins all vCPUs to a cpuset."""
    return metadata.parse({"kongming-vcpu-pinning": str(value)})


def report(
    uuid: str,
    generation: int = 1,
    status: str = "applied",
    reason: str = "",
    message: str = "",
    drift: str = "",
    changed_at: float = 10.0,
) -> Report:
    """What a host reports of an instance."""
    return Report(
        uuid,
        generation,
        Status(status),
        reason,
        message,
        "api",
        drift,
        9.0 if drift else None,
        changed_at,
    )
