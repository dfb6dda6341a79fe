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
"""Metrics that several services have."""

from __future__ import annotations

from prometheus_client.core import GaugeMetricFamily


def broker_connected(connected: bool) -> GaugeMetricFamily:
    """Return the gauge of the connection to the message broker."""
    return GaugeMetricFamily(
        "kongming_broker_connected",
        "Whether the service is subscribed at the message broker (1) or not (0).",
        value=connected,
    )


def nova_available(available: bool) -> GaugeMetricFamily:
    """Return the gauge of Nova's availability."""
    return GaugeMetricFamily(
        "kongming_nova_available",
        "Whether Nova's API was available at the last request (1) or not (0).",
        value=available,
    )
