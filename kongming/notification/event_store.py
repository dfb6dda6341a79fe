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

"""What was heard of Nova, on disk: across a restart the order of events stays known.

Nothing depends on it that could not be asked, or heard, again: it is written without waiting
for the disk, and what can't be written is done without.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import logging
from pathlib import Path
import time

from kongming import exception
from kongming.notification.last_events import Heard, load
from kongming.runtime.sqlite import Database

LOG = logging.getLogger(__name__)

FILE_NAME = "events.sqlite"

_MIGRATIONS = (
    (
        """
        CREATE TABLE heard (
            instance_uuid TEXT PRIMARY KEY,
            said TEXT NOT NULL,
            heard_at REAL NOT NULL
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE lookalike (
            host TEXT PRIMARY KEY,
            instance_uuid TEXT NOT NULL
        ) WITHOUT ROWID
        """,
    ),
)


class Memory:
    """The database of what was heard. Any thread may call any method."""

    def __init__(self, state_path: Path) -> None:
        """Open the database in the directory ``state_path``."""
        self._db: Database | None = None
        with self._told():
            self._db = Database(
                state_path / FILE_NAME, _MIGRATIONS, create=True, on_open=lambda _db: None
            )

    def close(self) -> None:
        """Close the database."""
        if self._db is not None:
            self._db.close()

    def load(self, since: float) -> list[tuple[str, Heard]]:
        """Read what was heard of each instance since then, the oldest first.

        What was heard before is forgotten, and so is what was heard in a time to come: the
        clock was set back since.
        """
        found: list[tuple[str, Heard]] = []
        now = time.time()
        with self._told():
            if self._db is not None:
                with self._db.transaction(durable=False) as db:
                    db.execute(
                        "DELETE FROM heard WHERE heard_at NOT BETWEEN ? AND ?", (since, now)
                    )
                    rows = db.execute("SELECT instance_uuid, said FROM heard ORDER BY heard_at")
                    found = [(uuid, heard) for uuid, said in rows if (heard := load(said))]
        return found

    def keep(self, instance_uuid: str, heard: Heard) -> None:
        """Keep what was heard of an instance."""
        self._write(
            "INSERT OR REPLACE INTO heard VALUES (?, ?, ?)",
            (instance_uuid, heard.dump(), time.time()),
        )

    def forget(self, instance_uuid: str) -> None:
        """Forget what was heard of an instance."""
        self._write("DELETE FROM heard WHERE instance_uuid = ?", (instance_uuid,))

    def keep_lookalike(self, host: str, instance_uuid: str) -> None:
        """Keep that events name a host that looks like this one.

        :param instance_uuid: of an instance of theirs that runs here; empty if none is known.
        """
        self._write("INSERT OR REPLACE INTO lookalike VALUES (?, ?)", (host, instance_uuid))

    def forget_lookalikes(self) -> None:
        """Forget the hosts that look like this one."""
        self._write("DELETE FROM lookalike", ())

    def _write(self, statement: str, parameters: tuple[object, ...]) -> None:
        with self._told():
            if self._db is not None:
                with self._db.transaction(durable=False) as db:
                    db.execute(statement, parameters)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Do without what can't be kept, and tell it once."""
        try:
            yield
        except exception.StoreUnavailable as error:
            if error.outage.is_news():
                LOG.warning("The order of events is not kept across a restart: %s", error)
