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

"""Waiting until hosts have carried out a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
import time

from kongming.client.progress import Progress
from kongming.client.responses import Fault

#: The seconds to keep waiting for a guest that has only just started.
PATIENCE_S = 3.0
_POLL_MIN_S = 0.2
_POLL_MAX_S = 3.0
#: The seconds that the API waits for an outcome before it responds to a poll: less than the time
#: limits of proxies, and there is progress to report meanwhile.
LONG_POLL_S = 10.0
# What a response takes that was waited for.
_RESPONSE_S = 1.0
# The time limit of the first poll, however little time is left.
_FIRST_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class End:
    """The end of a wait.

    :ivar progress: the last progress; None if none was read.
    :ivar done: whether the request was carried out, or will be when its guests start.
    :ivar why: why the wait ended before the outcome was known; empty otherwise.
    :ivar fault: the permanent error that ended the wait; None if there was none.
    """

    progress: Progress | None
    done: bool
    why: str = ""
    fault: Fault | None = None


class Waiter:
    """Polls a request until its outcome is known, and reports its progress.

    :param report: is called with the progress, one line for people, when it has changed.
    :param timeout: in seconds, from now on.
    :param patience: seconds to keep waiting for a guest that has only just started.
    :param long_poll_s: see :data:`LONG_POLL_S`; 0: it responds at once.
    """

    def __init__(
        self,
        report: Callable[[str], None],
        timeout: float,
        *,
        patience: float = PATIENCE_S,
        long_poll_s: float = LONG_POLL_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._report = report
        self._timeout = timeout
        self._patience = patience
        self._long_poll_s = long_poll_s
        self._clock = clock
        self._sleep = sleep
        self._deadline = clock() + timeout
        self._polls_until = self._deadline
        self._waits_until = self._deadline - timeout
        self._absent_since: float | None = None
        self._reported = ""
        self.last: Progress | None = None

    def left(self) -> float:
        """Return the remaining seconds."""
        return self._deadline - self._clock()

    def left_for_poll(self) -> float:
        """Return the remaining seconds for a poll."""
        return self._polls_until - self._clock()

    def to_wait(self) -> int:
        """Return the seconds that the API may wait before it responds in this poll."""
        until = min(self._waits_until, self._deadline - _RESPONSE_S)
        return max(0, int(until - self._clock()))

    def wait(self, poll: Callable[[], Progress]) -> End:
        """Poll until the outcome is known, or can't be found out."""
        self._polls_until = max(self._deadline, self._clock() + _FIRST_POLL_S)
        pause, denied = _POLL_MIN_S, 0
        while True:
            again_in, began = pause, self._clock()
            try:
                progress = poll()
            except Fault as fault:
                if fault.status_code == HTTPStatus.BAD_REQUEST and self._waits_until > began:
                    # An API that does not know how to wait.
                    self._long_poll_s, self._waits_until = 0, began
                    continue
                # keystoneauth gets a new token once, if it can.
                denied = denied + 1 if fault.status_code == HTTPStatus.UNAUTHORIZED else 0
                if not fault.passing or denied > 1:
                    return End(self.last, done=False, why=str(fault), fault=fault)
                self._report_change(str(fault))
                again_in = max(pause, fault.retry_after)
            else:
                self.last, denied = progress, 0
                self._report_change(progress.text)
                if self._is_over(progress):
                    return End(progress, done=not progress.replaced and not progress.undone)
                again_in = max(0, pause - (self._clock() - began))
            left = self.left()
            if left <= 0:
                return self._timed_out()
            self._sleep(min(again_in, left))
            pause = min(pause * 1.5, _POLL_MAX_S)
            self._waits_until = self._clock() + self._long_poll_s

    def _is_over(self, progress: Progress) -> bool:
        """Return whether the outcome is known; absent guests get some time."""
        if progress.open or not progress.absent:
            self._absent_since = None
            return not progress.open or bool(progress.replaced)
        if self._absent_since is None:
            self._absent_since = self._clock()
        patient = self._clock() - self._absent_since < self._patience
        return bool(progress.replaced) or not patient

    def _timed_out(self) -> End:
        if self.last is not None and self._absent_since is not None:
            return End(self.last, done=not self.last.undone)
        return End(self.last, done=False, why=f"not carried out within {self._timeout:g} s")

    def _report_change(self, text: str) -> None:
        if text != self._reported:
            self._reported = text
            self._report(text)
