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

Any conductor may answer any call: all that they know is in the database. What a host says counts
only for the instances that it holds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
import logging
import time

from kongming import exception
from kongming.conductor.claims import Claims, Disputes
from kongming.conductor.delivery import Care
from kongming.conductor.pusher import written
from kongming.db.allocations import Allocations
from kongming.db.hosts import Hosts
from kongming.db.values import Entry
from kongming.rpc.client import ExecutorClient
from kongming.rpc.messages import (
    Changed,
    Exchange,
    ExchangeAnswer,
    Kept,
    Plan,
    PlanAnswer,
    Report,
    Reports,
    Show,
    Wanted,
)
from kongming.rpc.server import Method

LOG = logging.getLogger(__name__)

_UNKNOWN = Wanted(0, None)


class Endpoint:
    """What a conductor can be asked for.

    :param claims: settles where instances are; None if Nova says it.
    """

    def __init__(
        self,
        allocations: Allocations,
        hosts: Hosts,
        executors: ExecutorClient,
        care: Care,
        claims: Claims | None,
    ) -> None:
        self._allocations = allocations
        self._hosts = hosts
        self._executors = executors
        self._care = care
        self._claims = claims
        self._disputes = Disputes()

    @property
    def methods(self) -> Mapping[str, Method]:
        """What can be called, by name."""
        return {
            "changed": Method(Changed, self.changed),
            "plan": Method(Plan, self.plan),
            "exchange": Method(Exchange, self.exchange, by_host=True),
            "report": Method(Reports, self.report, by_host=True),
            "show": Method(Show, self.show, by_host=True),
        }

    def changed(self, told: Changed) -> None:
        """See that what is wanted reaches the hosts of some instances."""
        self._care.take(told.instance_uuids)

    def plan(self, question: Plan) -> PlanAnswer:
        """Ask the host of an instance what it would do; nothing of it is kept."""
        host = self._care.host_of(question.instance_uuid)
        if host is None:
            return PlanAnswer(
                "absent",
                reason=exception.GuestAbsent.reason,
                message="the instance is on no known host",
            )
        try:
            return self._executors.plan(host, question)
        except exception.HostSilent as error:
            return PlanAnswer("silent", message=str(error))
        except exception.MessageRefused as error:
            return PlanAnswer("silent", message=f"host {host} rejects the request: {error}")

    def exchange(self, told: Exchange) -> ExchangeAnswer:
        """Take what a host tells, and say what is wanted there."""
        now = time.time()
        host, running = told.told_by, set(told.guests)
        kept = told.digest
        entries = self._allocations.desired({*told.guests, *told.known})
        if told.complete:
            about = told.about
            kept = self._hosts.heartbeat(
                host,
                started_at=about.started_at,
                version=about.version,
                interval_s=about.interval_s,
                now=now,
            )
            entries |= self._allocations.desired_on(host)
        contested = self._settle(host, told.guests, entries)
        self._keep(host, [*told.reports, *_released(told, entries, now)], now)
        elsewhere = {
            uuid
            for uuid in told.known
            if uuid not in running and (uuid not in entries or _is_elsewhere(entries[uuid], host))
        }
        unknown = {uuid for uuid in told.known if uuid not in entries and uuid in running}
        wanted = dict.fromkeys(unknown, _UNKNOWN)
        for uuid, entry in entries.items():
            may_know = entry.holder == host or (entry.unknown and uuid in running)
            has_it = uuid in told.known or uuid in running or not _is_elsewhere(entry, host)
            if may_know and has_it and uuid not in elsewhere:
                wanted |= _news(entry, told.known.get(uuid))
        return ExchangeAnswer(
            wanted,
            tuple(sorted(elsewhere)),
            tuple(sorted(contested)),
            show=bool(told.digest) and kept != told.digest,
            refused=told.unfit,
        )

    def report(self, told: Reports) -> Kept:
        """Keep what came of what is wanted."""
        self._keep(told.told_by, told.reports, time.time())
        return Kept(told.unfit)

    def show(self, told: Show) -> Kept:
        """Keep what a host looks like."""
        self._hosts.keep_snapshot(told.told_by, told.view, told.digest, time.time())
        return Kept(told.unfit)

    def _keep(self, host: str, reports: Sequence[Report], now: float) -> None:
        self._allocations.report(host, reports, now, nova=self._claims is None)

    def _settle(
        self, host: str, guests: Collection[str], entries: dict[str, Entry]
    ) -> Collection[str]:
        """Settle where guests count as being; return those that don't count as being here.

        By Nova's word, if it is asked: then it is asked again about what does not run where it
        should. What Nova does not know is the first host's that has it.
        """
        if self._claims is not None:
            return self._claims.settle(host, guests, entries)
        unsure = [uuid for uuid in guests if uuid in entries and entries[uuid].host != host]
        if unsure:
            self._care.ask_nova(unsure)
        of_another = [entries[uuid] for uuid in unsure if entries[uuid].holder != host]
        contested = {entry.instance_uuid: entry for entry in of_another if not entry.unknown}
        for uuid in self._disputes.note(host, contested):
            LOG.warning(
                "Instance %s: host %s reports it as running, but Nova has it on %s: %s gets no "
                "desired allocation for it, and its reports are ignored. Unless the instance is "
                "being migrated, compare [DEFAULT] host in kongming.conf of that host with "
                "nova.conf",
                *(uuid, host, contested[uuid].host or "no host", host),
            )
        return contested


def _released(told: Exchange, entries: Mapping[str, Entry], now: float) -> list[Report]:
    """Report as released what is to be, and of which the host that holds it knows nothing."""
    return [
        Report.released(entry.instance_uuid, entry.generation, now)
        for uuid, entry in entries.items()
        if entry.allocation is None and uuid not in told.known and entry.holder == told.told_by
    ]


def _is_elsewhere(entry: Entry, host: str) -> bool:
    """Tell whether an instance that does not run on a host is not there, either."""
    if entry.host is None:
        # Of one that Nova has told of it is known that it is nowhere.
        return entry.project_id is not None
    return entry.host != host


def _news(entry: Entry, known: int | None) -> dict[str, Wanted]:
    """Return what a host does not know yet."""
    if entry.generation == known or (known is None and entry.allocation is None):
        return {}
    return {entry.instance_uuid: written(entry)}
