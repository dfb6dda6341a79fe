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

"""Claims: the host of an instance that runs on other hosts than the database has.

With Nova, Nova decides (:class:`NovaClaims`). Without it, an instance belongs to the first host
that claims it (:class:`HostClaims`), until that host reports it as absent, or sends no heartbeat
for a long time. Other claims do not count until then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
import dataclasses
import logging
import threading
import time
from typing import Protocol

from kongming.db.allocations import Allocations
from kongming.db.hosts import Hosts
from kongming.db.values import Entry, Host

LOG = logging.getLogger(__name__)

#: A host without a heartbeat for this time loses its claims.
LAPSE_S = 600.0

# During a migration both hosts claim an instance.
_PATIENCE_S = 60.0
_REMEMBERED_S = 3600.0
_REMEMBERED_MAX = 1_000


class Claims(Protocol):
    """The policy for guests that run on other hosts than the database has.

    :ivar by_nova: whether Nova decides.
    """

    by_nova: bool

    def settle(
        self, host: str, guests: Iterable[str], entries: Mapping[str, Entry]
    ) -> tuple[Mapping[str, Entry], Collection[str]]:
        """Settle the claims of a host to its guests.

        :param entries: the entries of the guests, by UUID.
        :returns: the entries afterwards, and the guests that belong to another host.
        """


class HostClaims:
    """Claims without Nova: the first host wins. Thread-safe."""

    by_nova = False

    def __init__(self, allocations: Allocations, hosts: Hosts) -> None:
        self._allocations = allocations
        self._hosts = hosts
        self._disputes = Disputes()

    def settle(
        self, host: str, guests: Iterable[str], entries: Mapping[str, Entry]
    ) -> tuple[Mapping[str, Entry], Collection[str]]:
        claimed = not_on(host, guests, entries)
        if not claimed:
            return entries, ()
        names = {entry.host for entry in claimed.values() if entry.host}
        lapsed = lapsed_hosts(names, self._hosts.named(names), time.time())
        won = self._allocations.claim(host, claimed, lapsed)
        lost = claimed.keys() - set(won)
        for uuid in self._disputes.note(host, lost):
            owner = claimed[uuid].host
            LOG.warning(
                "Instance %s: host %s reports it as running, but the instance belongs to host "
                "%s, which reported it first: %s gets no desired allocation for it, and its "
                "reports are ignored. Unless the instance is being migrated, find out on which "
                "host it runs; it can belong to another host after %s reports it as absent or "
                "sends no heartbeat for %d minutes",
                *(uuid, host, owner, host, owner, LAPSE_S // 60),
            )
        return dict(entries) | {
            uuid: dataclasses.replace(entries[uuid], host=host) for uuid in won
        }, lost


class NovaClaims:
    """Claims with Nova: an instance that Nova knows belongs to Nova's host. Thread-safe.

    :param locate: makes Nova locate instances soon.
    """

    by_nova = True

    def __init__(self, locate: Callable[[Collection[str]], None]) -> None:
        self._locate = locate
        self._disputes = Disputes()

    def settle(
        self, host: str, guests: Iterable[str], entries: Mapping[str, Entry]
    ) -> tuple[Mapping[str, Entry], Collection[str]]:
        claimed = not_on(host, guests, entries)
        if claimed:
            self._locate(list(claimed))
        contested = of_other_holders(host, claimed)
        for uuid in self._disputes.note(host, contested):
            LOG.warning(
                "Instance %s: host %s reports it as running, but Nova has it on %s: %s gets no "
                "desired allocation for it, and its reports are ignored. Unless the instance is "
                "being migrated, compare [DEFAULT] host in kongming.conf of that host with "
                "nova.conf",
                *(uuid, host, contested[uuid].host or "no host", host),
            )
        return entries, contested


def not_on(host: str, guests: Iterable[str], entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return the entries of the guests that the database does not have on this host."""
    return {
        uuid: entries[uuid] for uuid in guests if uuid in entries and entries[uuid].host != host
    }


def of_other_holders(host: str, claimed: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return the claimed entries that belong to another host, or that Nova has on no host.

    An instance that Nova does not know belongs to the host where it runs.
    """
    return {
        uuid: entry
        for uuid, entry in claimed.items()
        if entry.holder != host and not entry.unknown
    }


def lapsed_hosts(names: Collection[str], hosts: Iterable[Host], now: float) -> set[str]:
    """Return the hosts without a recent heartbeat.

    :param hosts: the known hosts among ``names``.
    """
    return set(names) - {host.name for host in hosts if now - host.heartbeat_at < LAPSE_S}


class Disputes:
    """The claims that do not count: each is logged once, if it lasts. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The time of the first claim, and whether it was logged.
        self._claims: dict[tuple[str, str], tuple[float, bool]] = {}

    def note(self, host: str, instance_uuids: Iterable[str]) -> list[str]:
        """Note claims of a host that do not count.

        :returns: the instances whose dispute is to be logged now.
        """
        now = time.monotonic()
        due = []
        with self._lock:
            known = {
                key: each for key, each in self._claims.items() if now - each[0] < _REMEMBERED_S
            }
            for uuid in sorted(instance_uuids):
                began, is_logged = known.get((uuid, host), (now, False))
                if not is_logged and now - began >= _PATIENCE_S:
                    is_logged = True
                    due.append(uuid)
                if (uuid, host) in known or len(known) < _REMEMBERED_MAX:
                    known[uuid, host] = (began, is_logged)
            self._claims = known
        return due
