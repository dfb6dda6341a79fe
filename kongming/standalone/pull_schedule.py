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

"""The schedule of complete exchanges: when all desired allocations are requested again."""

from __future__ import annotations

from collections.abc import Collection
import math
import time

from kongming.runtime.backoff import Backoff
from kongming.runtime.timer import Timer

# The longest pause while another host still has a guest of this one.
_CONTEST_MAX_S = 30.0
# After an outage of RabbitMQ, all hosts listen again at once.
_SPREAD_S = 5.0


class PullSchedule:
    """The time of the next complete exchange with a conductor.

    It is due at an interval, at each request, and soon while guests are contested. A request is
    never lost: one that is made during an exchange is for another one.
    """

    def __init__(self) -> None:
        self._timer = Timer()
        self._contest = Backoff(_CONTEST_MAX_S)
        self._listening_at: float | None = None
        self._answered_at = -math.inf

    @property
    def is_settled(self) -> bool:
        """Whether an exchange was answered that began after the calls were received here.

        Until then a push may be older than the answer of an earlier exchange.
        """
        return self._listening_at is not None and self._answered_at >= self._listening_at

    def listening(self) -> None:
        """Note that calls are received from now on, including those that waited in the queue."""
        is_first, self._listening_at = self._listening_at is None, time.monotonic()
        self.request(0.0 if is_first else _SPREAD_S)

    def request(self, seconds: float = 0.0) -> None:
        """Make an exchange due within some seconds, or earlier if it is due earlier."""
        self._timer.expire_within(seconds)

    def is_due(self, interval_s: float) -> bool:
        """Return whether an exchange is due now."""
        return self._timer.is_due(interval_s)

    def begin(self) -> float:
        """Note that an exchange begins; return its time for :meth:`answered`."""
        self._timer.restart()
        return time.monotonic()

    def failed(self) -> None:
        """Make the exchange due again, because it got no answer."""
        self.request()

    def answered(self, began_at: float) -> None:
        """Note that the exchange that began at this time was answered."""
        self._answered_at = began_at

    def contested(self, instance_uuids: Collection[str]) -> None:
        """Make an exchange due soon, after growing pauses, while there are contested guests."""
        if instance_uuids:
            self.request(self._contest.next())
        else:
            self._contest.reset()
