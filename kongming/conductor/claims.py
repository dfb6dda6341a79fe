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

"""Claims: which host has an instance, where executors and Nova say it of different ones.

Where Nova is not asked the first host that claims an instance has it. It has it until it reports
it as absent, or is not heard of for long. A claim of another host does not count until then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
import dataclasses
import logging
import threading
import time

from kongming.db.allocations import Allocations
from kongming.db.hosts import Hosts
from kongming.db.values import Entry

LOG = logging.getLogger(__name__)

#: A host that was not heard of for so many seconds has nothing any more.
LAPSE_S = 600.0

# While an instance migrates both hosts have it.
_PATIENCE_S = 60.0
_REMEMBERED_S = 3600.0
_REMEMBERED_MAX = 1_000


class Disputes:
    """Claims that do not count: told if they last, once for each. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # When a claim first did not count, and whether that was told.
        self._claims: dict[tuple[str, str], tuple[float, bool]] = {}

    def note(self, host: str, instance_uuids: Iterable[str]) -> list[str]:
        """Note that claims of a host do not count.

        :returns: the instances of which that is to be told now.
        """
        now = time.monotonic()
        told = []
        with self._lock:
            known = {key: each for key, each in self._claims.items() if _is_fresh(each, now)}
            for uuid in sorted(instance_uuids):
                began, is_told = known.get((uuid, host), (now, False))
                if not is_told and now - began >= _PATIENCE_S:
                    is_told = True
                    told.append(uuid)
                if (uuid, host) in known or len(known) < _REMEMBERED_MAX:
                    known[uuid, host] = (began, is_told)
            self._claims = known
        return told


class Claims:
    """The hosts' claims to instances. Any thread may call any method."""

    def __init__(self, allocations: Allocations, hosts: Hosts) -> None:
        self._allocations = allocations
        self._hosts = hosts
        self._disputes = Disputes()

    def settle(self, host: str, guests: Iterable[str], entries: dict[str, Entry]) -> set[str]:
        """Have a host claim its guests; note in ``entries`` those that it won.

        :param entries: what is wanted, by instance.
        :returns: the guests that another host has.
        """
        wanted = [entries[uuid] for uuid in guests if uuid in entries]
        claimed = {entry.instance_uuid: entry for entry in wanted if entry.host != host}
        if not claimed:
            return set()
        lapsed = self._lapsed({entry.host for entry in claimed.values() if entry.host})
        won = self._allocations.claim(host, claimed, lapsed)
        for uuid in won:
            entries[uuid] = dataclasses.replace(entries[uuid], host=host)
        lost = claimed.keys() - set(won)
        self._tell(host, lost, claimed)
        return lost

    def _lapsed(self, names: Collection[str]) -> set[str]:
        now = time.time()
        there = {
            host.name for host in self._hosts.named(names) if now - host.heartbeat_at < LAPSE_S
        }
        return set(names) - there

    def _tell(self, host: str, lost: Iterable[str], entries: Mapping[str, Entry]) -> None:
        for uuid in self._disputes.note(host, lost):
            first = entries[uuid].host
            LOG.warning(
                "Instance %s: host %s reports it as running, but the instance belongs to host "
                "%s, which reported it first: %s gets no desired allocation for it, and its "
                "reports are ignored. Unless the instance is being migrated, find out on which "
                "host it runs; it can belong to another host after %s reports it as absent or "
                "sends no heartbeat for %d minutes",
                *(uuid, host, first, host, first, LAPSE_S // 60),
            )


def _is_fresh(dispute: tuple[float, bool], now: float) -> bool:
    return now - dispute[0] < _REMEMBERED_S
