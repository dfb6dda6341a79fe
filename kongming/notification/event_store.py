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

"""The last events of each instance, on disk: their order is known across a restart.

They are written without waiting for the disk, and a write that fails is dropped: what is missing
is received, or requested from Nova, again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import logging
from pathlib import Path
import time

from kongming import exception
from kongming.notification.last_events import LastEvents, load
from kongming.runtime.sqlite import Database

LOG = logging.getLogger(__name__)

FILE_NAME = "events.sqlite"

_MIGRATIONS = (
    (
        """
        CREATE TABLE last_events (
            instance_uuid TEXT PRIMARY KEY,
            events TEXT NOT NULL,
            received_at REAL NOT NULL
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE similar_host (
            host TEXT PRIMARY KEY,
            instance_uuid TEXT NOT NULL
        ) WITHOUT ROWID
        """,
    ),
)


class EventStore:
    """The database of the last events. Any thread may call any method."""

    def __init__(self, state_path: Path) -> None:
        """Open the database in the directory ``state_path``."""
        self._db: Database | None = None
        with self._log_outage():
            self._db = Database(
                state_path / FILE_NAME, _MIGRATIONS, create=True, on_open=lambda _db: None
            )

    def close(self) -> None:
        """Close the database."""
        if self._db is not None:
            self._db.close()

    def load(self, since: float) -> list[tuple[str, LastEvents]]:
        """Return the last events of each instance received since a time, the oldest first.

        Older rows are deleted, and so are rows with a time in the future: the clock was set back.
        """
        found: list[tuple[str, LastEvents]] = []
        now = time.time()
        with self._log_outage():
            if self._db is not None:
                with self._db.transaction(durable=False) as db:
                    db.execute(
                        "DELETE FROM last_events WHERE received_at NOT BETWEEN ? AND ?",
                        (since, now),
                    )
                    rows = db.execute(
                        "SELECT instance_uuid, events FROM last_events ORDER BY received_at"
                    )
                    found = [(uuid, last) for uuid, text in rows if (last := load(text))]
        return found

    def save(self, instance_uuid: str, last: LastEvents) -> None:
        """Store the last events of an instance."""
        self._write(
            "INSERT OR REPLACE INTO last_events VALUES (?, ?, ?)",
            (instance_uuid, last.dump(), time.time()),
        )

    def forget(self, instance_uuid: str) -> None:
        """Delete the last events of an instance."""
        self._write("DELETE FROM last_events WHERE instance_uuid = ?", (instance_uuid,))

    def add_similar_host(self, host: str, instance_uuid: str) -> None:
        """Store the name of a host in events that resembles the name of this host.

        :param instance_uuid: an instance of that host that runs here; empty if none is known.
        """
        self._write("INSERT OR REPLACE INTO similar_host VALUES (?, ?)", (host, instance_uuid))

    def clear_similar_hosts(self) -> None:
        """Delete all names that resemble the name of this host."""
        self._write("DELETE FROM similar_host", ())

    def _write(self, statement: str, parameters: tuple[object, ...]) -> None:
        with self._log_outage():
            if self._db is not None:
                with self._db.transaction(durable=False) as db:
                    db.execute(statement, parameters)

    @contextmanager
    def _log_outage(self) -> Iterator[None]:
        """Log an error of the database once, and go on without it."""
        try:
            yield
        except exception.StoreUnavailable as error:
            if error.outage.should_log():
                LOG.warning("The order of events is not kept across a restart: %s", error)
