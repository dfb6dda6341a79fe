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

"""The metrics of trigger 3 on a compute host: the bus and the conductors."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from kongming.bus.subscription import Subscription
from kongming.metrics.gauges import broker_connected
from kongming.rpc.metrics import messages_refused
from kongming.rpc.refusals import Refusals
from kongming.rpc.server import OTHER
from kongming.standalone.conductor_sync import ConductorSync

# The calls that an executor receives or makes, and unknown ones.
_CALLS = ("desired", "plan", "exchange", "report", "snapshot", OTHER)


class StandaloneCollector(Collector):
    """The metrics of an executor's exchange with conductors."""

    def __init__(self, sync: ConductorSync, calls: Subscription, refusals: Refusals) -> None:
        self._sync = sync
        self._calls = calls
        self._refusals = refusals

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        yield broker_connected(self._calls.connected)
        yield messages_refused(self._refusals, _CALLS)
        yield GaugeMetricFamily(
            "kongming_conductor_available",
            "Whether a conductor answered the last call of this host (1) or not (0).",
            value=self._sync.is_available,
        )
