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

"""The metrics of an executor: guests, work and libvirt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from kongming import exception
from kongming.allocation.statuses import Status
from kongming.executor.executor import Executor
from kongming.executor.statistics import BUCKETS_S, Statistics
from kongming.executor.store.record import Record

_OUTCOMES = ("applied", "failed")
# RELEASED is only found in the history.
_STATUSES = [each.value for each in Status if each.is_reported and each.is_listed]


class ExecutorCollector(Collector):
    """Reads an executor's metrics, without any call to libvirt."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def collect(self) -> Iterator[Metric]:
        """Yield all families; those of the guests only if the store is available."""
        yield from _work(self._executor.statistics)
        records = self._records()
        if records is not None:
            guests = GaugeMetricFamily(
                "kongming_guests",
                "Managed guests by placement status.",
                labels=["status"],
            )
            for status in _STATUSES:
                guests.add_metric([status], sum(each.status == status for each in records))
            yield guests
            yield GaugeMetricFamily(
                "kongming_guests_hung",
                "Guests that can't be placed because a libvirt call for them does not return.",
                value=sum(each.reason == exception.GuestHung.reason for each in records),
            )
            yield GaugeMetricFamily(
                "kongming_guests_unobserved",
                "Guests whose placement can't be observed completely: some drift is not detected.",
                value=sum(bool(each.unobserved) for each in records),
            )
        yield GaugeMetricFamily(
            "kongming_store_available",
            "Whether the state path can be read (1) or not (0).",
            value=records is not None,
        )
        yield GaugeMetricFamily(
            "kongming_queue_depth",
            "Guests that wait for a worker.",
            value=self._executor.queue_depth,
        )
        yield GaugeMetricFamily(
            "kongming_workers_held_up",
            "Workers that wait for a slow libvirt call; other workers replace them.",
            value=self._executor.held_up,
        )
        yield GaugeMetricFamily(
            "kongming_libvirt_connected",
            "Whether libvirt is available (1) or not (0).",
            value=self._executor.connected,
        )
        yield GaugeMetricFamily(
            "kongming_visibility_gaps",
            "Files of the host and parts of guests that can't be read or observed; the log names "
            "each.",
            value=len(self._executor.visibility.gaps()),
        )

    def _records(self) -> list[Record] | None:
        try:
            return self._executor.records()
        except exception.StoreUnavailable:
            return None


def _work(done: Statistics) -> Iterator[Metric]:
    yield _counter(
        "kongming_refusals",
        "Refused requests by reason code.",
        "reason",
        dict.fromkeys(_reasons(exception.Refused), 0) | dict(done.refusals),
    )
    yield _counter(
        "kongming_drifts",
        "Drift found on guests, by reason code.",
        "reason",
        dict.fromkeys(_reasons(exception.Drifted), 0) | dict(done.drifts),
    )
    yield _counter(
        "kongming_applies",
        "Changes of guests by outcome.",
        "outcome",
        dict.fromkeys(_OUTCOMES, 0) | dict(done.applies),
    )
    sums = accumulate(list(done.durations))
    yield HistogramMetricFamily(
        "kongming_apply_duration_seconds",
        "Time from reading the state of a guest until its change was verified or had failed.",
        buckets=[
            (str(bound), total) for bound, total in zip((*BUCKETS_S, "+Inf"), sums, strict=True)
        ],
        sum_value=done.seconds,
    )


def _counter(name: str, help_: str, label: str, values: Mapping[str, int]) -> Metric:
    """Return a counter with a sample for every possible value from the start.

    Prometheus can't see the first increase of a sample that appears with it.
    """
    family = CounterMetricFamily(name, help_, labels=[label])
    for value, count in sorted(values.items()):
        family.add_metric([value], count)
    return family


def _reasons(kind: type[exception.KongmingError]) -> Iterator[str]:
    for error in kind.__subclasses__():
        yield error.reason
        yield from _reasons(error)
