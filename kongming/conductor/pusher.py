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

"""Telling the hosts what is wanted there: one message for each host."""

from __future__ import annotations

from collections.abc import Collection
import time

from kongming.db.allocations import Allocations
from kongming.db.hosts import Hosts
from kongming.db.values import Entry
from kongming.rpc.client import ExecutorClient
from kongming.rpc.messages import Wanted


def written(entry: Entry) -> Wanted:
    """Return what an executor is told of an allocation."""
    allocation = entry.allocation
    return Wanted(
        entry.generation,
        None if allocation is None else allocation.to_json(),
        entry.requested_by,
    )


class Pusher:
    """Tells the hosts that were heard of lately; the others will ask."""

    def __init__(self, allocations: Allocations, hosts: Hosts, executors: ExecutorClient) -> None:
        self._allocations = allocations
        self._hosts = hosts
        self._executors = executors

    def push(self, instance_uuids: Collection[str]) -> list[str]:
        """Tell the hosts of some instances what is wanted for them.

        :returns: those of the instances that are on no host, as far as is known.
        :raises DatabaseUnavailable: if it can't be read.
        """
        by_host: dict[str, dict[str, Wanted]] = {}
        nowhere = []
        for entry in self._allocations.desired(instance_uuids).values():
            if entry.holder is None:
                nowhere.append(entry.instance_uuid)
            else:
                by_host.setdefault(entry.holder, {})[entry.instance_uuid] = written(entry)
        for host in self._awake(by_host):
            self._executors.wanted(host, by_host[host])
        return nowhere

    def seen(self) -> dict[str, str]:
        """Return the hosts on which guests were last seen; for where Nova is not asked.

        Those that two hosts show are left out: the first one that claims them has them.
        """
        found: dict[str, str] = {}
        twice: set[str] = set()
        for name, guests in self._hosts.running():
            twice.update(uuid for uuid in guests if found.setdefault(uuid, name) != name)
        return {uuid: name for uuid, name in found.items() if uuid not in twice}

    def _awake(self, names: Collection[str]) -> list[str]:
        now = time.time()
        known = self._hosts.named(names) if names else []
        return [host.name for host in known if not host.unresponsive(now)]
