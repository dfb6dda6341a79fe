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

"""The tables of the store."""

#: The statements from one version of the schema to the next.
MIGRATIONS = (
    (
        """
        CREATE TABLE instance (
            instance_uuid TEXT PRIMARY KEY,
            requested TEXT,
            accepted TEXT,
            generation INTEGER NOT NULL,
            status TEXT NOT NULL,
            reason TEXT NOT NULL,
            message TEXT NOT NULL,
            changed_at REAL NOT NULL,
            source TEXT NOT NULL,
            drift TEXT NOT NULL DEFAULT '',
            drift_at REAL,
            unobserved TEXT NOT NULL DEFAULT ''
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE request (
            instance_uuid TEXT NOT NULL,
            source TEXT NOT NULL,
            requested TEXT,
            reason TEXT NOT NULL,
            message TEXT NOT NULL,
            requested_by TEXT NOT NULL,
            requested_at REAL NOT NULL,
            generation INTEGER NOT NULL,
            PRIMARY KEY (instance_uuid, source)
        ) WITHOUT ROWID
        """,
        # No index by time: it would be read once a day, and written at each request.
        """
        CREATE TABLE history (
            id INTEGER PRIMARY KEY,
            instance_uuid TEXT NOT NULL,
            generation INTEGER NOT NULL,
            requested_at REAL,
            source TEXT NOT NULL,
            requested_by TEXT NOT NULL,
            requested TEXT,
            status TEXT NOT NULL,
            reason TEXT NOT NULL,
            message TEXT NOT NULL,
            changed_at REAL NOT NULL
        )
        """,
        "CREATE INDEX history_of_instance ON history (instance_uuid, id)",
        """
        CREATE TABLE hint (
            instance_uuid TEXT PRIMARY KEY,
            place TEXT NOT NULL,
            host TEXT NOT NULL,
            reported_by TEXT NOT NULL,
            reported_at REAL NOT NULL,
            uncertain INTEGER NOT NULL,
            from_api INTEGER NOT NULL
        ) WITHOUT ROWID
        """,
        # Baselines in domains name the store that wrote them.
        "CREATE TABLE identity AS SELECT lower(hex(randomblob(8))) AS id",
    ),
)

#: The version of the schema that this Kongming works with.
SCHEMA_VERSION = len(MIGRATIONS)
