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
"""A thread that runs one step again and again, and backs off after errors."""

from __future__ import annotations

from collections.abc import Callable
import logging
import threading

from kongming import exception
from kongming.runtime.backoff import Backoff
from kongming.runtime.heartbeats import Heartbeats
from kongming.runtime.hourly import Hourly
from kongming.runtime.timer import random_between

LOG = logging.getLogger(__name__)


class Loop:
    """Runs a step at each wake-up, and at an interval.

    A step that raises an error is repeated after 1, 2, 4, … seconds.

    :param name: the name of the thread.
    :param doing: what the steps do, for the log.
    :param step: does what is due. It may return seconds to pause, in which wake-ups wait.
    :param interval_s: the longest time from one step to the next, unless a step pauses or fails.
    :param gather_s: how long a step is delayed after a wake-up, so that it serves several.
    :param retry_max_s: the longest delay after an error.
    :param on_error: called with each error of a step that is no fault of Kongming.
    :param heartbeats: where the thread is expected to make progress; faults are none.
    :param overdue_s: the longest time that a step may take.
    """

    def __init__(
        self,
        name: str,
        doing: str,
        step: Callable[[], float | None],
        *,
        interval_s: float,
        retry_max_s: float,
        gather_s: float = 0.0,
        on_error: Callable[[exception.KongmingError], None] = lambda error: LOG.debug("%s", error),
        heartbeats: Heartbeats | None = None,
        overdue_s: float = 0.0,
    ) -> None:
        self._doing = doing
        self._step = step
        self._interval_s = interval_s
        self._gather_s = gather_s
        self._on_error = on_error
        self._heartbeats = heartbeats
        self._overdue_s = overdue_s
        self._beat: Callable[[], None] = lambda: None
        self._backoff = Backoff(retry_max_s)
        self._faults = Hourly()
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Have the next step run soon."""
        self._woken.set()

    def stop(self, timeout: float = 0.0) -> bool:
        """Start no more steps; return whether the thread has ended within the timeout."""
        self._stopping.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def is_stopping(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopping.is_set()

    def run_step(self) -> float | None:
        """Run the step once; return the seconds to pause, None to wait for a wake-up."""
        try:
            pause = self._step()
        except exception.KongmingError as error:
            self._on_error(error)
            self._beat()
            return max(self._backoff.next() * random_between(0.5, 1.0), error.retry_after)
        except Exception as error:
            if self._faults.should_log(type(error).__name__):
                LOG.exception(
                    "A fault of Kongming in %s: %s; it will be retried",
                    self._doing,
                    error,  # noqa: TRY401
                )
            return self._backoff.next()
        self._backoff.reset()
        self._beat()
        return pause

    def _run(self) -> None:
        if self._heartbeats is not None:
            self._beat = self._heartbeats.expect(self._thread.name, self._overdue_s)
        while not self._stopping.is_set():
            pause = self.run_step()
            if pause is not None:
                self._stopping.wait(pause)
            elif self._woken.wait(self._interval_s):
                self._woken.clear()
                self._stopping.wait(self._gather_s)
