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

"""An SQLite database that several threads and processes use.

Each problem is one error, which names the way out. A damaged file that was moved away is created
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
import errno
import logging
from pathlib import Path
import sqlite3
import threading
from typing import Any

from kongming import exception
from kongming.runtime import ownership

LOG = logging.getLogger(__name__)

_BUSY_TIMEOUT_S = 5.0

# After these errors the open file can't be used any more.
_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
    }
)
# The lowest byte of an extended code is the primary code.
_PRIMARY = 0xFF
# A version that no database has.
_UNKNOWN = -1


class Database:
    """One database file. Any thread may call any method.

    :param migrations: the statements from one version of the schema to the next; PRAGMA
        user_version is the number of applied ones.
    :param create: whether to create a missing file.
    :param on_open: called each time the file was opened.
    """

    def __init__(
        self,
        path: Path,
        migrations: Sequence[Sequence[str]],
        *,
        create: bool = True,
        on_open: Callable[[sqlite3.Connection], None],
    ) -> None:
        """Open the database.

        :raises StoreUnavailable: if it can't be opened.
        """
        self.path = path
        self._migrations = migrations
        self._create = create
        self._on_open = on_open
        self.lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._version = 0
        self._file: tuple[int, int] | None = None
        self._outage: exception.Outage | None = None
        with self._connected():
            pass

    def close(self) -> None:
        """Close the database; the next use opens it again."""
        with self.lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def query(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with self._connected() as db:
            return db.execute(statement, parameters).fetchall()

    @contextmanager
    def transaction(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        """Run a transaction; a durable one survives a power failure, too."""
        with self._connected() as db:
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            with _begun(db):
                yield db
            if self._outage is not None:
                self._outage = None
                LOG.info("%s can be used again", self.path)

    def changed_elsewhere(self) -> bool:
        """Return whether another process has changed anything since the last call."""
        with self._connected() as db:
            version = _data_version(db)
            changed = version != self._version
            self._version = version
        return changed

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with self.lock:
            try:
                if self._db is not None and _file(self.path) != self._file:
                    # Moved away, or replaced: writes to the old file would be lost.
                    with suppress(sqlite3.Error):
                        self.close()
                    self._db = None
                if self._db is None:
                    self._db = self._open()
                    self._file = _file(self.path)
                yield self._db
            except exception.StoreUnavailable as error:
                self._outage = error.outage = self._outage or error.outage
                raise
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", 0) & _PRIMARY in _DAMAGE:
                    with suppress(sqlite3.Error):
                        self.close()
                if self._outage is None:
                    self._outage = exception.Outage()
                raise exception.StoreUnavailable(
                    f"{self.path}: {error}; {self._hint()}", self._outage
                ) from error

    def _hint(self) -> str:
        """Return the way out if the file can't be used."""
        beside = [self.path.with_name(f"{self.path.name}-{end}") for end in ("wal", "shm")]
        return ownership.explain(
            [self.path, *beside, self.path.parent], tool=not self._create
        ) or (
            "check that the directory is writable, its disk not full and the file not damaged (if "
            "it is, move it away: requests from metadata are restored by the next events of their "
            "instances)"
        )

    def _open(self) -> sqlite3.Connection:
        if not self._create and _is_missing(self.path):
            raise exception.StoreUnavailable(
                f"{self.path} does not exist: has a service of Kongming run on this host with "
                "this [DEFAULT] state_path?"
            )
        db = sqlite3.connect(
            self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        # Else one string that is not UTF-8 would make the whole row unreadable.
        db.text_factory = lambda raw: raw.decode("utf-8", "backslashreplace")
        try:
            db.execute("PRAGMA journal_mode = WAL")
            with _begun(db):
                self._migrate(db)
                self._on_open(db)
            if self._create:
                self._check_writable(db)
            # A file that is opened again may be another one, as after a restore.
            self._version = _data_version(db) if self._file is None else _UNKNOWN
        except BaseException:
            db.close()
            raise
        return db

    def _check_writable(self, db: sqlite3.Connection) -> None:
        """Raise an error now if the file is read-only, and not at the first write."""
        db.execute("BEGIN IMMEDIATE")
        try:
            db.execute(f"PRAGMA user_version = {len(self._migrations)}")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")

    def _migrate(self, db: sqlite3.Connection) -> None:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > len(self._migrations):
            raise exception.StoreUnavailable(
                f"{self.path} was written by a newer Kongming (schema {version}; this version "
                f"supports {len(self._migrations)}): install the newer version again"
            )
        for statements in self._migrations[version:]:
            for statement in statements:
                db.execute(statement)
        if version < len(self._migrations):
            db.execute(f"PRAGMA user_version = {len(self._migrations)}")


@contextmanager
def _begun(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _is_missing(path: Path) -> bool:
    """Return whether a file is missing; SQLite explains other problems better."""
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ENOENT
    return False


def _file(path: Path) -> tuple[int, int] | None:
    """Return the identity of the file at a path; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _data_version(db: sqlite3.Connection) -> int:
    (version,) = db.execute("PRAGMA data_version").fetchone()
    return int(version)
