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

"""Where the instances are, and whose they are: by Nova's word.

Nobody else is believed: not who asks for an allocation, and an executor only
where Nova is not asked at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
import logging
import threading
import time

from kongming.db.allocations import Allocations
from kongming.db.values import Location
from kongming.nova.client import Nova
from kongming.nova.server import Server

LOG = logging.getLogger(__name__)

# Who asks for more instances than this lists all servers instead.
_FEW = 20
# Nova's clock, and what it had not committed yet when it was last asked.
_OVERLAP_S = 300.0


class Whereabouts:
    """Asks Nova, one question at a time, and keeps the answers in the database.

    Each method gives the instances that have moved, and raises
    ``NovaUnavailable`` or ``DatabaseUnavailable``.
    """

    def __init__(self, nova: Nova, allocations: Allocations) -> None:
        self._nova = nova
        self._allocations = allocations
        self._lock = threading.Lock()
        self._asked_at = 0.0

    def locate(self, instance_uuids: Collection[str]) -> list[str]:
        """Find some instances."""
        with self._lock:
            if len(instance_uuids) > _FEW:
                found: Iterable[Server | None] = self._nova.servers()
            else:
                found = [self._nova.server(uuid) for uuid in instance_uuids]
            return self._keep(found, set(instance_uuids))

    def host_of(self, instance_uuid: str) -> str | None:
        """Say on which host an instance is; None if on none."""
        with self._lock:
            server = self._nova.server(instance_uuid)
        return None if server is None else server.host

    def look_at_changes(self) -> list[str]:
        """Look at the servers that have changed since the last look."""
        with self._lock:
            since = datetime.fromtimestamp(self._asked_at - _OVERLAP_S, UTC)
            changes = {"changes-since": since.strftime("%Y-%m-%dT%H:%M:%SZ")}
            moved = self._keep(
                self._nova.servers(**changes), set(self._allocations.instance_uuids())
            )
            self._asked_at = self._nova.listed_at
            return moved

    def look_at_all(self) -> list[str]:
        """Look at all servers: those that Nova does not have any more are gone."""
        with self._lock:
            known = self._allocations.instance_uuids()
            moved = self._keep(servers := list(self._nova.servers()), set(known))
            asked_at = self._nova.listed_at
            # Of one that was never seen it is not known whether it is still to come.
            missing = set(known) - {server.instance_uuid for server in servers}
            missing -= set(self._allocations.without_project())
            fates = {uuid: self._nova.server(uuid, deleted=True) for uuid in sorted(missing)}
            self._gone([uuid for uuid, server in fates.items() if server is None])
            moved += self._keep(fates.values(), missing)
            self._asked_at = asked_at
            return moved

    def _keep(self, servers: Iterable[Server | None], about: set[str]) -> list[str]:
        found = [each for each in servers if each is not None and each.instance_uuid in about]
        self._gone([server.instance_uuid for server in found if server.deleted])
        there = {
            server.instance_uuid: Location(server.project_id, server.host)
            for server in found
            if not server.deleted
        }
        return self._allocations.locate(there) if there else []

    def _gone(self, instance_uuids: list[str]) -> None:
        if instance_uuids:
            LOG.info("Deleted in Nova, released: %s", ", ".join(instance_uuids))
            self._allocations.forget(instance_uuids, time.time())
