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

"""The calls of the API and the executors to a conductor.

Any conductor may answer any call, because all state is in the database. Reports of a host count
only for the instances that it holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import time

from kongming.conductor import exchange as decisions
from kongming.conductor.claims import Claims
from kongming.conductor.delivery import Delivery
from kongming.conductor.dry_runs import DryRuns
from kongming.conductor.notifications import Notifications
from kongming.db.allocations import Allocations
from kongming.db.hosts import Hosts
from kongming.rpc.client import ExecutorClient
from kongming.rpc.messages import (
    Acknowledgement,
    Changed,
    Exchange,
    ExchangeAnswer,
    HostSnapshot,
    Plan,
    Plans,
    Report,
    Reports,
)
from kongming.rpc.server import Method


class Endpoint:
    """The methods of a conductor."""

    def __init__(
        self,
        allocations: Allocations,
        hosts: Hosts,
        executors: ExecutorClient,
        delivery: Delivery,
        claims: Claims,
        notifications: Notifications,
    ) -> None:
        self._allocations = allocations
        self._hosts = hosts
        self._dry_runs = DryRuns(executors, delivery)
        self._delivery = delivery
        self._claims = claims
        self._notifications = notifications

    @property
    def methods(self) -> Mapping[str, Method]:
        """The methods that can be called, by name."""
        return {
            "changed": Method(Changed, self.changed),
            "plan": Method(Plan, self._dry_runs.plan),
            "plan_all": Method(Plans, self._dry_runs.plan_all),
            "exchange": Method(Exchange, self.exchange, by_host=True),
            "report": Method(Reports, self.report, by_host=True),
            "snapshot": Method(HostSnapshot, self.snapshot, by_host=True),
        }

    def changed(self, changed: Changed) -> None:
        """Deliver changed allocations to their hosts."""
        self._delivery.deliver(changed.instance_uuids)

    def exchange(self, exchange: Exchange) -> ExchangeAnswer:
        """Store the state of a host, and return the differences to its desired allocations."""
        now, host, digest = time.time(), exchange.host, exchange.digest
        entries = self._allocations.desired({*exchange.guests, *exchange.known})
        if exchange.complete:
            executor = exchange.executor
            digest = self._hosts.heartbeat(
                host,
                started_at=executor.started_at,
                version=executor.version,
                interval_s=executor.interval_s,
                now=now,
            )
            entries |= self._allocations.desired_on(host)
        settled, contested = self._claims.settle(host, exchange.guests, entries)
        released = decisions.released(exchange, settled, now)
        self._store(host, [*exchange.reports, *released], now)
        return decisions.answer(exchange, settled, contested, digest)

    def report(self, reports: Reports) -> Acknowledgement:
        """Store the reports of a host."""
        self._store(reports.host, reports.reports, time.time())
        return Acknowledgement(reports.left_out)

    def snapshot(self, found: HostSnapshot) -> Acknowledgement:
        """Store the snapshot of a host."""
        self._hosts.keep_snapshot(found.host, found.snapshot, found.digest, time.time())
        return Acknowledgement(found.left_out)

    def _store(self, host: str, reports: Sequence[Report], now: float) -> None:
        changed = self._allocations.report(host, reports, now, nova=self._claims.by_nova)
        self._notifications.of_allocations(changed)
