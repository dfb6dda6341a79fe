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

from collections.abc import Collection, Iterable
import time
from typing import Any

from kongming.db.allocations import Allocations
from kongming.db.hosts import Hosts
from kongming.db.values import Entry
from kongming.rpc.client import ExecutorClient


def written(entry: Entry) -> dict[str, Any]:
    """Give what an executor is told of an allocation."""
    allocation = entry.allocation
    return {
        "generation": entry.generation,
        "allocation": None if allocation is None else allocation.to_json(),
        "asked_by": entry.asked_by,
    }


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
        by_host: dict[str, dict[str, Any]] = {}
        nowhere = []
        for entry in self._allocations.wanted(instance_uuids).values():
            places = set(_places(entry))
            for host in places:
                by_host.setdefault(host, {})[entry.instance_uuid] = written(entry)
            if not places:
                nowhere.append(entry.instance_uuid)
        for host in self._awake(by_host):
            if not self._executors.wanted(host, by_host[host]):
                # Nor could the others be told: each takes a second to find out.
                break
        return nowhere

    def seen(self) -> dict[str, str]:
        """Give the hosts on which guests were last seen; for where Nova is not asked."""
        return {
            guest["instance_uuid"]: host.name
            for host in self._hosts.list()
            if host.view
            for guest in host.view["guests"]
        }

    def _awake(self, names: Collection[str]) -> list[str]:
        now = time.time()
        known = self._hosts.named(names) if names else []
        return [host.name for host in known if not host.silent(now)]


def _places(entry: Entry) -> Iterable[str]:
    """Give where it may be: by Nova's word, and where it was last seen."""
    if entry.host:
        yield entry.host
    if entry.outcome is not None and entry.outcome.host:
        yield entry.outcome.host
