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

"""Check whether requests can be stored: the state path and its database.

The database is only read, neither created nor migrated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
import os
from pathlib import Path
import sqlite3

from oslo_config import cfg
from oslo_upgradecheck.upgradecheck import Result

from kongming.executor.lock import NAME as LOCK_NAME
from kongming.executor.store.schema import SCHEMA_VERSION
from kongming.executor.store.store import FILE_NAME
from kongming.runtime.users import user
from kongming.status.finding import bad, good

_BUSY_TIMEOUT_S = 3.0


def check(conf: cfg.ConfigOpts) -> Iterator[Result]:
    """Check the directory, then the database in it."""
    folder = Path(conf.state_path)
    problem = _folder_problem(folder)
    if problem:
        yield bad(f"{problem}; [DEFAULT] state_path must belong to the service's user")
        return
    yield good(f"{folder} is writable by user {user()}, who ran this check")
    # If root has started the service once, all of these may be root's.
    for path in (folder / LOCK_NAME, *sorted(folder.glob("*.sqlite*"))):
        if path.exists() and not _may(path, os.R_OK | os.W_OK):
            yield bad(
                f"user {user()} may not read and write {path}, which belongs to user "
                f"{user(path.stat().st_uid)}: give it to the service's user"
            )
            return
    yield from _database(folder / FILE_NAME)


def open_read_only(path: Path) -> sqlite3.Connection:
    """Open a database without changing anything of it."""
    # SQLite may create the index of a WAL to read it. Without a WAL no process has the database
    # open, and nothing is created.
    is_closed = not path.with_name(f"{path.name}-wal").exists()
    uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if is_closed else ''}"
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_S)


def _folder_problem(folder: Path) -> str:
    for part in (folder, *folder.parents):
        try:
            part.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"{folder}: {error.strerror} for user {user()}"
        if not part.is_dir():
            return f"{part} is not a directory"
        if not _may(part, os.W_OK | os.X_OK):
            what = (
                "is not writable"
                if part == folder
                else f"can't be created: {part} is not writable"
            )
            return f"{folder} {what} by user {user()}"
        return ""
    return f"{folder} has no root"


def _database(path: Path) -> Iterator[Result]:
    if not path.exists():
        yield good("no database exists yet: the service creates it when it starts")
        return
    try:
        with closing(open_read_only(path)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            (health,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        health = str(error)
    if health != "ok":
        yield bad(
            f"{path} is damaged ({health}): stop the service and move the file elsewhere; the "
            "requests of the instances' metadata are stored again at their next events"
        )
    elif version > SCHEMA_VERSION:
        yield bad(
            f"{path} was written by a newer Kongming (schema {version}, this one supports "
            f"{SCHEMA_VERSION}): install that version again"
        )
    elif version < SCHEMA_VERSION:
        yield good(
            f"the database is intact; the service migrates its schema {version} to "
            f"{SCHEMA_VERSION} when it starts"
        )
    else:
        yield good("the database is intact")


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=True)
