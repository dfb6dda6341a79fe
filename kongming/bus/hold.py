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

"""A hold: no messages are taken while something can't be done, and none is given back twice.

What is given back is delivered again at once, and a quorum queue drops what it has delivered too
often. So the subscription is let go as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
import threading


class Hold:
    """Holds a subscription up until some work succeeds.

    Who handles messages begins it; the subscription lets go, tries the work, and ends it.
    """

    def __init__(self) -> None:
        self._work: Callable[[], bool] | None = None
        self._let_go = threading.Event()

    @property
    def is_on(self) -> bool:
        """Tell whether no messages may be taken."""
        return self._work is not None

    def begin(self, work: Callable[[], bool]) -> None:
        """Have no more messages taken until some work succeeds.

        :param work: tells whether it has.
        """
        self._work = work

    def wait(self) -> None:
        """Wait until the subscription is let go; what is given back then comes to nobody."""
        self._let_go.wait()

    def let_go(self) -> None:
        """Note that the subscription is let go."""
        self._let_go.set()

    def end(self) -> bool:
        """Try the work; tell whether messages may be taken."""
        if self._work is not None and not self._work():
            return False
        self._work = None
        self._let_go.clear()
        return True
