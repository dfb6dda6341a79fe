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

"""The tables of the store, and how they came about."""

#: The statements from one version of the schema to the next.
MIGRATIONS = (
    (
        """
        CREATE TABLE instance (
            instance_uuid TEXT PRIMARY KEY,
            asked TEXT,
            accepted TEXT,
            generation INTEGER NOT NULL,
            status TEXT NOT NULL,
            reason TEXT NOT NULL,
            message TEXT NOT NULL,
            changed_at REAL NOT NULL
        ) WITHOUT ROWID
        """,
    ),
    (
        "ALTER TABLE instance ADD COLUMN source TEXT NOT NULL DEFAULT 'metadata'",
        "ALTER TABLE instance ADD COLUMN drift TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE instance ADD COLUMN drift_at REAL",
        """
        CREATE TABLE request (
            instance_uuid TEXT NOT NULL,
            source TEXT NOT NULL,
            asked TEXT,
            reason TEXT NOT NULL,
            message TEXT NOT NULL,
            asked_by TEXT NOT NULL,
            asked_at REAL NOT NULL,
            PRIMARY KEY (instance_uuid, source)
        ) WITHOUT ROWID
        """,
        """
        INSERT INTO request SELECT instance_uuid, 'metadata', asked,
            iif(asked IS NULL, reason, ''), iif(asked IS NULL, message, ''), '', changed_at
            FROM instance
        """,
        """
        CREATE TABLE history (
            id INTEGER PRIMARY KEY,
            instance_uuid TEXT NOT NULL,
            generation INTEGER NOT NULL,
            asked_at REAL,
            source TEXT NOT NULL,
            asked_by TEXT NOT NULL,
            asked TEXT,
            status TEXT NOT NULL,
            reason TEXT NOT NULL,
            message TEXT NOT NULL,
            changed_at REAL NOT NULL
        )
        """,
        "CREATE INDEX history_of_instance ON history (instance_uuid, id)",
        "CREATE INDEX history_by_time ON history (changed_at)",
    ),
    # Read once a day, written at each request.
    ("DROP INDEX history_by_time",),
    ("ALTER TABLE request ADD COLUMN generation INTEGER NOT NULL DEFAULT 0",),
    (
        """
        CREATE TABLE hint (
            instance_uuid TEXT PRIMARY KEY,
            place TEXT NOT NULL,
            host TEXT NOT NULL,
            said_by TEXT NOT NULL,
            said_at REAL NOT NULL,
            doubtful INTEGER NOT NULL,
            answered INTEGER NOT NULL
        ) WITHOUT ROWID
        """,
        # Which of the notes in domains are of this store, and not of one before it.
        "CREATE TABLE identity AS SELECT lower(hex(randomblob(8))) AS id",
    ),
    ("ALTER TABLE instance ADD COLUMN unobserved TEXT NOT NULL DEFAULT ''",),
)

#: The version of the schema that this Kongming works with.
SCHEMA_VERSION = len(MIGRATIONS)
