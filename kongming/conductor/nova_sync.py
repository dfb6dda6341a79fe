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

"""Nova's host and project of each instance.

With Nova no other source counts: not the requester, and not the executors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
import logging
import threading
import time
from typing import TYPE_CHECKING

from kongming.db.allocations import Allocations
from kongming.db.values import Location
from kongming.nova.server import Server

if TYPE_CHECKING:
    from kongming.nova.client import Nova

LOG = logging.getLogger(__name__)

# To locate more instances, all servers are listed instead.
_FEW = 20
# The overlap of two lists of changes, for Nova's clock and its uncommitted changes.
_OVERLAP_S = 300.0


class NovaSync:
    """The synchronization of the database with Nova, one call at a time. Thread-safe.

    Each method returns the instances that have moved, and raises ``NovaUnavailable`` or
    ``DatabaseUnavailable``.
    """

    def __init__(self, nova: Nova, allocations: Allocations) -> None:
        self._nova = nova
        self._allocations = allocations
        self._lock = threading.Lock()
        self._listed_at = 0.0

    def locate(self, instance_uuids: Collection[str]) -> list[str]:
        """Locate some instances."""
        with self._lock:
            return self._store(self._servers(instance_uuids), set(instance_uuids))

    def host_of(self, instance_uuid: str) -> str | None:
        """Return the host of an instance; None if it is on none."""
        with self._lock:
            server = self._nova.server(instance_uuid)
        return None if server is None else server.host

    def hosts_of(self, instance_uuids: Collection[str]) -> dict[str, str | None]:
        """Return the hosts of instances, of those that Nova has."""
        uuids = set(instance_uuids)
        with self._lock:
            found = [each for each in self._servers(uuids) if each is not None]
        return {each.instance_uuid: each.host for each in found if each.instance_uuid in uuids}

    def poll_changes(self) -> list[str]:
        """Read the servers that have changed since the last call."""
        with self._lock:
            since = datetime.fromtimestamp(self._listed_at - _OVERLAP_S, UTC)
            changes = {"changes-since": since.strftime("%Y-%m-%dT%H:%M:%SZ")}
            moved = self._store(
                self._nova.servers(**changes), set(self._allocations.instance_uuids())
            )
            self._listed_at = self._nova.listed_at
            return moved

    def resync(self) -> list[str]:
        """Read all servers, and forget the instances that Nova has deleted."""
        with self._lock:
            known = self._allocations.instance_uuids()
            moved = self._store(servers := list(self._nova.servers()), set(known))
            listed_at = self._nova.listed_at
            # An instance that Nova never had may still be created.
            missing = set(known) - {server.instance_uuid for server in servers}
            missing -= set(self._allocations.without_project())
            deleted = {uuid: self._nova.server(uuid, deleted=True) for uuid in sorted(missing)}
            self._forget([uuid for uuid, server in deleted.items() if server is None])
            moved += self._store(deleted.values(), missing)
            self._listed_at = listed_at
            return moved

    def _servers(self, instance_uuids: Collection[str]) -> Iterable[Server | None]:
        """Return the servers of some instances, perhaps among others."""
        if len(instance_uuids) > _FEW:
            return self._nova.servers()
        return [self._nova.server(uuid) for uuid in instance_uuids]

    def _store(self, servers: Iterable[Server | None], instance_uuids: set[str]) -> list[str]:
        found = [
            each for each in servers if each is not None and each.instance_uuid in instance_uuids
        ]
        self._forget([server.instance_uuid for server in found if server.deleted])
        there = {
            server.instance_uuid: Location(server.project_id, server.host)
            for server in found
            if not server.deleted
        }
        return self._allocations.locate(there) if there else []

    def _forget(self, instance_uuids: list[str]) -> None:
        if instance_uuids:
            LOG.info("Deleted in Nova, released: %s", ", ".join(instance_uuids))
            self._allocations.forget(instance_uuids, time.time())
