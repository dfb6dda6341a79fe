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
"""The metrics of a conductor: what it is connected to, and how far all has come."""

from __future__ import annotations

from collections.abc import Iterator
import time

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from kongming import exception
from kongming.allocation.statuses import LISTED
from kongming.bus.subscription import Subscription
from kongming.conductor.delivery import Delivery
from kongming.db.allocations import Allocations
from kongming.db.hosts import Hosts
from kongming.metrics.gauges import broker_connected, nova_available
from kongming.rpc.messages import Desired
from kongming.rpc.metrics import messages_refused
from kongming.rpc.outbox import Outbox
from kongming.rpc.refusals import Refusals
from kongming.rpc.server import OTHER

# The calls that a conductor receives or makes, and unknown ones.
_CALLS = ("exchange", "report", "snapshot", "changed", "plan", OTHER)


class ConductorCollector(Collector):
    """The metrics of a conductor and of the database that all conductors share."""

    def __init__(
        self,
        calls: Subscription,
        pushes: Outbox[Desired],
        refusals: Refusals,
        delivery: Delivery,
        allocations: Allocations,
        hosts: Hosts,
    ) -> None:
        self._calls = calls
        self._pushes = pushes
        self._refusals = refusals
        self._delivery = delivery
        self._allocations = allocations
        self._hosts = hosts

    def collect(self) -> Iterator[Metric]:
        """Yield all families; those of the database only if it can be read."""
        yield broker_connected(self._calls.connected)
        yield messages_refused(self._refusals, _CALLS)
        yield CounterMetricFamily(
            "kongming_pushes_dropped",
            "Instances whose new desired allocation could not be pushed to their host.",
            value=self._pushes.dropped,
        )
        yield nova_available(self._delivery.nova_available)
        of_database = self._of_database()
        yield GaugeMetricFamily(
            "kongming_database_available",
            "Whether the database could be read (1) or not (0).",
            value=bool(of_database),
        )
        yield from of_database

    def _of_database(self) -> list[Metric]:
        try:
            counts, hosts = self._allocations.counts(), self._hosts.list(snapshots=False)
        except exception.DatabaseUnavailable:
            return []
        allocations = GaugeMetricFamily(
            "kongming_allocations",
            "Allocations in the database, by placement status.",
            labels=["status"],
        )
        for status in LISTED:
            allocations.add_metric([status], counts.get(status, 0))
        now = time.time()
        unresponsive = sum(host.unresponsive(now) for host in hosts)
        states = GaugeMetricFamily(
            "kongming_hosts", "Known hosts, by the state of their executor.", labels=["state"]
        )
        states.add_metric(["up"], len(hosts) - unresponsive)
        states.add_metric(["unresponsive"], unresponsive)
        return [allocations, states]
