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

"""Pushes of desired allocations to hosts: one message for each host."""

from __future__ import annotations

from collections.abc import Collection
import time

from kongming.conductor.exchange import desired_of
from kongming.db.allocations import Allocations
from kongming.db.hosts import Hosts
from kongming.rpc.client import ExecutorClient
from kongming.rpc.messages import Desired


class Pusher:
    """A sender of pushes to responsive hosts; the others will pull."""

    def __init__(self, allocations: Allocations, hosts: Hosts, executors: ExecutorClient) -> None:
        self._allocations = allocations
        self._hosts = hosts
        self._executors = executors

    def push(self, instance_uuids: Collection[str]) -> list[str]:
        """Push the desired allocations of some instances to their hosts.

        :returns: the instances on no known host.
        :raises DatabaseUnavailable: if it can't be read.
        """
        by_host: dict[str, dict[str, Desired]] = {}
        nowhere = []
        for entry in self._allocations.desired(instance_uuids).values():
            if entry.holder is None:
                nowhere.append(entry.instance_uuid)
            else:
                by_host.setdefault(entry.holder, {})[entry.instance_uuid] = desired_of(entry)
        for host in self._responsive(by_host):
            self._executors.push(host, by_host[host])
        return nowhere

    def hosts_of_guests(self) -> dict[str, str]:
        """Return the host of each guest by the hosts' snapshots, for use without Nova.

        Guests in the snapshots of two hosts are left out: the first host to claim one has it.
        """
        found: dict[str, str] = {}
        ambiguous: set[str] = set()
        for name, guests in self._hosts.running():
            ambiguous.update(uuid for uuid in guests if found.setdefault(uuid, name) != name)
        return {uuid: name for uuid, name in found.items() if uuid not in ambiguous}

    def _responsive(self, names: Collection[str]) -> list[str]:
        now = time.time()
        known = self._hosts.named(names) if names else []
        return [host.name for host in known if not host.unresponsive(now)]
