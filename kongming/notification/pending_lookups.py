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

"""The instances to look up in Nova, on disk until Nova's API has answered."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
import logging
from pathlib import Path
import time

from kongming.allocation.stored import is_instance
from kongming.runtime.sqlite import Database

LOG = logging.getLogger(__name__)

FILE_NAME = "lookups.sqlite"

#: The key of a lookup of all servers of this host.
ALL = "all"

_MIGRATIONS = (("CREATE TABLE lookup (key TEXT PRIMARY KEY) WITHOUT ROWID",),)


@dataclass(frozen=True, slots=True, eq=False)
class Lookup:
    """One lookup; each time that it is requested again it is another one.

    :ivar here: whether the event that led to it names this host; None if there was no event.
    :ivar attempts: how many answers contradicted the event.
    :ivar due: when it is due, by the monotonic clock.
    """

    here: bool | None = None
    attempts: int = 0
    due: float = field(default_factory=time.monotonic)

    def postponed(self, seconds: float) -> Lookup:
        """Return the lookup that follows an answer that may be older than the event."""
        due = time.monotonic() + seconds
        return replace(self, attempts=self.attempts + 1, due=due)


class PendingLookups:
    """The pending lookups. Any thread may call any method.

    Every method raises ``StoreUnavailable`` if the database can't be used.
    """

    def __init__(self, state_path: Path, *, create: bool = True) -> None:
        """Open the database in the directory ``state_path``."""
        self._pending: dict[str, Lookup] = {}
        self._db = Database(
            state_path / FILE_NAME, _MIGRATIONS, create=create, on_open=lambda _db: None
        )
        self._load()

    def __enter__(self) -> PendingLookups:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def add(self, key: str, *, here: bool | None = None) -> None:
        """Add a lookup of an instance, or of :data:`ALL`; it is on disk on return."""
        with self._db.lock:
            if key not in self._pending:
                with self._db.transaction(durable=True) as db:
                    db.execute("INSERT OR IGNORE INTO lookup VALUES (?)", (key,))
            self._pending[key] = Lookup(here)

    def pending(self) -> dict[str, Lookup]:
        """Return all lookups, including those that other processes added."""
        with self._db.lock:
            if self._db.changed_elsewhere():
                self._load()
            return dict(self._pending)

    def postpone(self, key: str, lookup: Lookup, seconds: float) -> None:
        """Delay a lookup, unless it was requested again meanwhile."""
        with self._db.lock:
            if self._pending.get(key) is lookup:
                self._pending[key] = lookup.postponed(seconds)

    def finish(self, key: str, lookup: Lookup) -> None:
        """Remove a lookup, unless it was requested again meanwhile."""
        with self._db.lock:
            if self._pending.get(key) is lookup:
                with self._db.transaction(durable=False) as db:
                    db.execute("DELETE FROM lookup WHERE key = ?", (key,))
                del self._pending[key]

    def is_stored(self, key: str) -> bool:
        """Return whether a lookup is on disk: another process may have added it."""
        return bool(self._db.query("SELECT 1 FROM lookup WHERE key = ?", (key,)))

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, key: object) -> bool:
        return key in self._pending

    def _load(self) -> None:
        for (key,) in self._db.query("SELECT key FROM lookup"):
            if key != ALL and not is_instance(key):
                # In a URL of Nova's API it would name something else.
                LOG.warning("%s: %s can't be an instance and is removed", FILE_NAME, repr(key))
                with self._db.transaction(durable=False) as db:
                    db.execute("DELETE FROM lookup WHERE key = ?", (key,))
            elif key not in self._pending:
                self._pending[key] = Lookup()
