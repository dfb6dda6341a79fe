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

"""A hold: no messages are accepted until some work succeeds.

A requeued message is delivered again at once, and a quorum queue drops messages that it has
delivered too often. So the whole subscription ends until the work succeeds.
"""

from __future__ import annotations

from collections.abc import Callable
import threading


class Hold:
    """A hold of one subscription.

    The handler of messages begins it; the subscription ends, retries the work, and ends the hold.
    """

    def __init__(self) -> None:
        self._work: Callable[[], bool] | None = None
        self._unsubscribed = threading.Event()

    @property
    def is_on(self) -> bool:
        """Whether no messages are accepted."""
        return self._work is not None

    def begin(self, work: Callable[[], bool]) -> None:
        """Accept no more messages until some work succeeds.

        :param work: returns whether it has succeeded.
        """
        self._work = work

    def wait(self) -> None:
        """Wait until the subscription has ended; messages that are requeued then stay there."""
        self._unsubscribed.wait()

    def unsubscribed(self) -> None:
        """Note that the subscription has ended."""
        self._unsubscribed.set()

    def end(self) -> bool:
        """Retry the work; return whether messages are accepted again."""
        if self._work is not None and not self._work():
            return False
        self._work = None
        self._unsubscribed.clear()
        return True
