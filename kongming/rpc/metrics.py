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

"""The metric of refused messages."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily

from kongming import exception
from kongming.rpc.refusals import Refusals

_REASONS = (exception.MessageInvalid.reason, exception.SignatureInvalid.reason)


def messages_refused(refusals: Refusals, kinds: Iterable[str]) -> CounterMetricFamily:
    """Return the number of refused messages.

    :param kinds: the methods of the service.
    """
    family = CounterMetricFamily(
        "kongming_messages_refused",
        "Rejected messages of other services, or parts of messages, by call and reason.",
        labels=["kind", "reason"],
    )
    for kind in kinds:
        for reason in _REASONS:
            family.add_metric([kind, reason], refusals.counts[kind, reason])
    return family
