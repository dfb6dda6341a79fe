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

"""What the API and the executors ask a conductor for.

Any conductor may answer any call: all that they know is in the database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import logging
import time
from typing import Any

import oslo_messaging

from kongming import exception
from kongming.conductor.care import Care
from kongming.conductor.pusher import written
from kongming.db.allocations import Allocations
from kongming.db.hosts import Hosts
from kongming.db.values import Entry, Location, Report
from kongming.rpc.calls import CONDUCTOR, answers
from kongming.rpc.client import ExecutorClient

LOG = logging.getLogger(__name__)

_UNKNOWN: dict[str, Any] = {"generation": 0, "allocation": None, "asked_by": ""}


class Endpoint:
    """What a conductor can be asked for.

    :param nova: whether Nova says where instances are; else executors do.
    """

    target = oslo_messaging.Target(version=CONDUCTOR.version)

    def __init__(
        self,
        allocations: Allocations,
        hosts: Hosts,
        executors: ExecutorClient,
        care: Care,
        *,
        nova: bool,
    ) -> None:
        self._allocations = allocations
        self._hosts = hosts
        self._executors = executors
        self._care = care
        self._nova = nova

    def changed(self, _context: Any, instance_uuids: Sequence[str]) -> None:
        """See that what is wanted reaches the hosts of some instances."""
        self._care.take(instance_uuids)

    @answers
    def plan(
        self, _context: Any, instance_uuid: str, allocation: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Ask the host of an instance what it would do; nothing of it is kept."""
        host = self._care.host_of(instance_uuid)
        if host is None:
            return {
                "outcome": "absent",
                "host": None,
                "reason": exception.GuestAbsent.reason,
                "message": "the instance is on no host that is known of",
                "steps": [],
                "warnings": [],
            }
        try:
            return self._executors.plan(host, instance_uuid, allocation)
        except exception.HostSilent as error:
            return {"outcome": "silent", "message": str(error)}

    @answers
    def exchange(
        self,
        _context: Any,
        *,
        told_by: str,
        about: Mapping[str, Any],
        complete: bool,
        guests: Sequence[str],
        known: Mapping[str, int],
        reports: Sequence[Mapping[str, Any]],
        digest: str,
    ) -> dict[str, Any]:
        """Take what a host tells, and say what is wanted there.

        :param about: ``version``, ``started_at`` and ``interval_s`` of the executor.
        :param complete: whether this is about all that the host has.
        :param guests: the instances that run there.
        :param known: the generation of what is known there of each instance.
        :param reports: how far each has come.
        :param digest: of what the host looks like; empty if that is not told.
        :returns: ``wanted``: what is to be done otherwise than is known there;
            ``elsewhere``: what is on another host; ``show``: whether to tell
            what the host looks like.
        """
        now = time.time()
        self._keep(told_by, reports, now)
        entries = self._allocations.wanted({*guests, *known})
        kept = digest
        if complete:
            kept = self._hosts.see(told_by, **about, now=now)
            entries |= self._allocations.wanted_on(told_by)
        self._note_where(told_by, guests, entries)
        self._release(told_by, known, entries, now)
        running = set(guests)
        elsewhere = {
            uuid
            for uuid in known
            if uuid not in running
            and (uuid not in entries or _is_elsewhere(entries[uuid], told_by))
        }
        wanted = {uuid: _UNKNOWN for uuid in known if uuid not in entries and uuid in running}
        for uuid, entry in entries.items():
            if uuid in known or uuid in running or not _is_elsewhere(entry, told_by):
                wanted |= _news(entry, known.get(uuid))
        return {
            "wanted": {uuid: said for uuid, said in wanted.items() if uuid not in elsewhere},
            "elsewhere": sorted(elsewhere),
            "show": bool(digest) and kept != digest,
        }

    @answers
    def report(
        self, _context: Any, *, told_by: str, reports: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Keep what came of what is wanted."""
        self._keep(told_by, reports, time.time())
        return {}

    @answers
    def show(
        self, _context: Any, *, told_by: str, view: Mapping[str, Any], digest: str
    ) -> dict[str, Any]:
        """Keep what a host looks like."""
        self._hosts.keep_view(told_by, dict(view), digest, time.time())
        return {}

    def _keep(self, host: str, reports: Sequence[Mapping[str, Any]], now: float) -> None:
        if reports:
            self._allocations.report(host, [Report(**report) for report in reports], now)

    def _note_where(self, host: str, guests: Sequence[str], entries: dict[str, Entry]) -> None:
        """Note where guests run, unless Nova tells; then it is to be asked again."""
        moved = [uuid for uuid in guests if uuid in entries and entries[uuid].host != host]
        if not moved:
            return
        if self._nova:
            self._care.ask_nova(moved)
        else:
            self._allocations.locate({uuid: Location(None, host) for uuid in moved})

    def _release(
        self, host: str, known: Mapping[str, int], entries: dict[str, Entry], now: float
    ) -> None:
        """What is to be let go, and of which the host knows nothing, is let go."""
        gone = [
            entry
            for uuid, entry in entries.items()
            if entry.allocation is None and uuid not in known and (entry.reporter or host) == host
        ]
        if gone:
            reports = [
                Report.released(entry.instance_uuid, entry.generation, now) for entry in gone
            ]
            self._allocations.report(host, reports, now)


def _is_elsewhere(entry: Entry, host: str) -> bool:
    """Tell whether an instance that does not run on a host is not there, either."""
    if entry.host is None:
        # Of one that Nova has told of it is known that it is nowhere.
        return entry.project_id is not None
    return entry.host != host


def _news(entry: Entry, known: int | None) -> dict[str, dict[str, Any]]:
    """Give what a host does not know yet."""
    if entry.generation == known or (known is None and entry.allocation is None):
        return {}
    return {entry.instance_uuid: written(entry)}
