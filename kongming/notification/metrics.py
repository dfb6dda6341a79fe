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

"""The metrics of a trigger by notifications: events, and the message broker."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from kongming.metrics.gauges import broker_connected
from kongming.notification.handler import Handler
from kongming.notification.listener import Listener

# Each kind is a time series; for other hosts' events they are not needed.
_WITHOUT_KIND = ("foreign", "malformed")


class NotificationCollector(Collector):
    """The metrics of the handler and the listener."""

    def __init__(self, handler: Handler, listener: Listener) -> None:
        self._handler = handler
        self._listener = listener

    def collect(self) -> Iterator[Metric]:
        """Yield all metric families."""
        events = CounterMetricFamily(
            "kongming_events",
            "Notifications received, by kind (for this host only) and outcome.",
            labels=["kind", "outcome"],
        )
        for outcome in _WITHOUT_KIND:
            events.add_metric(["", outcome], self._handler.counts[outcome])
        for (kind, outcome), count in sorted(dict(self._handler.kinds).items()):
            events.add_metric([kind, outcome], count)
        yield events
        yield broker_connected(self._listener.connected)
        yield GaugeMetricFamily(
            "kongming_events_held_up",
            "Whether events wait in their queue because one can't be stored (1) or not (0).",
            value=self._listener.held_up,
        )
        yield GaugeMetricFamily(
            "kongming_last_event_age_seconds",
            "Seconds since the last notification of any host, or since the start.",
            value=self._handler.idle_s,
        )
