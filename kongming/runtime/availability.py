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
"""Whether somebody answers: told once when they don't, and once when they do again."""

from __future__ import annotations

import logging
import time


class Contact:
    """The contact to one other service.

    :param who: its name, as a sentence begins with it.
    :param log: where it is told.
    :ivar since: since when it does not answer, by the wall clock; None if it does.
    """

    def __init__(self, who: str, log: logging.Logger) -> None:
        self._who = who
        self._log = log
        self.since: float | None = None

    def lost(self, what: str) -> None:
        """Note that there is no answer.

        :param what: what goes wrong, and what comes of it.
        """
        if self.since is None:
            self.since = time.time()
            self._log.warning("%s", what)

    def answered(self) -> None:
        """Note that there is one."""
        if self.since is not None:
            self._log.info(
                "%s is available again, after %d s", self._who, time.time() - self.since
            )
            self.since = None
