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

"""The instances that Nova is to be asked about, on disk until it has answered."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
import logging
from pathlib import Path
import time

from kongming.allocation.stored import is_instance
from kongming.runtime.sqlite import Database

LOG = logging.getLogger(__name__)

FILE_NAME = "inquiries.sqlite"

# All servers of this host.
ALL = "all"

_MIGRATIONS = (("CREATE TABLE inquiry (about TEXT PRIMARY KEY) WITHOUT ROWID",),)


@dataclass(frozen=True, slots=True, eq=False)
class Inquiry:
    """What is to be asked about one instance: another one whenever that is requested again.

    :ivar here: whether the event that led to it says that the instance is on
        this host; None if there was no event.
    :ivar attempts: how many answers have said something else.
    :ivar due: when to ask, by the monotonic clock.
    """

    here: bool | None = None
    attempts: int = 0
    due: float = field(default_factory=time.monotonic)

    def postponed(self, seconds: float) -> Inquiry:
        """Give it as it is after an answer that may be behind the event."""
        due = time.monotonic() + seconds
        return replace(self, attempts=self.attempts + 1, due=due)


class Inquiries:
    """What is open. Any thread may call any method.

    Every method raises ``StoreUnavailable`` if the database can't be used.
    """

    def __init__(self, state_path: Path, *, create: bool = True) -> None:
        """Open the database in the directory ``state_path``."""
        self._open: dict[str, Inquiry] = {}
        self._db = Database(
            state_path / FILE_NAME, _MIGRATIONS, create=create, on_open=lambda _db: None
        )
        self._load()

    def __enter__(self) -> Inquiries:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def add(self, about: str, *, here: bool | None = None) -> None:
        """Have Nova asked about an instance, or :data:`ALL`; on disk on return."""
        with self._db.lock:
            if about not in self._open:
                with self._db.transaction(durable=True) as db:
                    db.execute("INSERT OR IGNORE INTO inquiry VALUES (?)", (about,))
            self._note(about, here)

    def open(self) -> dict[str, Inquiry]:
        """Give all that are open, those that other processes added included."""
        with self._db.lock:
            if self._db.changed_elsewhere():
                self._load()
            return dict(self._open)

    def postpone(self, about: str, asked: Inquiry, seconds: float) -> None:
        """Ask again later, unless it was asked for again already."""
        with self._db.lock:
            if self._open.get(about) is asked:
                self._open[about] = asked.postponed(seconds)

    def close_one(self, about: str, asked: Inquiry) -> None:
        """Note that it was answered, unless it was asked for again meanwhile."""
        with self._db.lock:
            if self._open.get(about) is asked:
                with self._db.transaction(durable=False) as db:
                    db.execute("DELETE FROM inquiry WHERE about = ?", (about,))
                del self._open[about]

    def is_kept(self, about: str) -> bool:
        """Look on disk whether something is open: another process may have asked."""
        return bool(self._db.query("SELECT 1 FROM inquiry WHERE about = ?", (about,)))

    def __len__(self) -> int:
        """Count those that are open."""
        return len(self._open)

    def __contains__(self, about: object) -> bool:
        return about in self._open

    def _load(self) -> None:
        for (about,) in self._db.query("SELECT about FROM inquiry"):
            if about != ALL and not is_instance(about):
                # Nova could only be asked something else by it.
                LOG.warning("%s: %s can't be an instance and is removed", FILE_NAME, repr(about))
                with self._db.transaction(durable=False) as db:
                    db.execute("DELETE FROM inquiry WHERE about = ?", (about,))
            elif about not in self._open:
                self._note(about, None)

    def _note(self, about: str, here: bool | None) -> None:
        self._open[about] = Inquiry(here)
