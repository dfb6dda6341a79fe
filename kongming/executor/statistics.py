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

"""What the executor has done, in numbers."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
import threading

from kongming import exception

#: Upper bounds of the histogram's buckets, in seconds.
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Statistics:
    """Counters since the start of the process. Any thread may call any method.

    :ivar refusals: number of refusals, by reason code.
    :ivar drifts: how often drift was found, by reason code.
    :ivar applies: how often a guest was changed, by outcome: ``applied`` or ``failed``.
    :ivar durations: number of changes of a guest, by the index of the first of
        :data:`BUCKETS_S` that they fit in, and last of those that took longer.
    :ivar seconds: the sum of all durations.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.refusals: Counter[str] = Counter()
        self.drifts: Counter[str] = Counter()
        self.applies: Counter[str] = Counter()
        self.durations = [0] * (len(BUCKETS_S) + 1)
        self.seconds = 0.0

    def refused(self, refusal: exception.Refused) -> None:
        """Count a refusal."""
        with self._lock:
            self.refusals[refusal.reason] += 1

    def drifted(self, drift: exception.Drifted) -> None:
        """Count a drift."""
        with self._lock:
            self.drifts[drift.reason] += 1

    def applied(self, outcome: str, seconds: float) -> None:
        """Count a change of a guest and its duration."""
        with self._lock:
            self.applies[outcome] += 1
            self.durations[bisect_left(BUCKETS_S, seconds)] += 1
            self.seconds += seconds
