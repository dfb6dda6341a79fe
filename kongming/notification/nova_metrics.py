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

"""The metrics of requests to Nova's API."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from kongming.metrics.gauges import nova_available
from kongming.notification.nova_poller import NovaPoller

_OUTCOMES = ("answered", "denied", "rate_limited", "failed", "unreachable", "garbage")


class NovaCollector(Collector):
    """The metrics of the Nova poller."""

    def __init__(self, poller: NovaPoller) -> None:
        self._poller = poller

    def collect(self) -> Iterator[Metric]:
        """Yield all metric families."""
        requests = CounterMetricFamily(
            "kongming_nova_requests", "Requests to Nova's API, by outcome.", labels=["outcome"]
        )
        for outcome in _OUTCOMES:
            requests.add_metric([outcome], self._poller.requests[outcome])
        yield requests
        yield nova_available(self._poller.is_available)
        yield GaugeMetricFamily(
            "kongming_nova_lookups",
            "Instances waiting for a request to Nova's API.",
            value=self._poller.pending,
        )
