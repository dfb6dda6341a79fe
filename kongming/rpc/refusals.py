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

"""Refusals of what came over the bus: counted, and told of once for each sender and kind."""

from __future__ import annotations

from collections import Counter
import logging
import threading

from kongming import exception
from kongming.rpc.messages import Message
from kongming.runtime.cleaning import clean
from kongming.runtime.hourly import Hourly

LOG = logging.getLogger(__name__)


class Refusals:
    """What one service did not take of what others sent. Any thread may call any method.

    :ivar counts: how often, by kind (the method that was called) and reason code.
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._hourly = Hourly()

    def note(self, sender: str, kind: str, error: exception.MessageRefused) -> None:
        """Note that a message was not taken.

        :param sender: who sent it, by its own word.
        :param kind: the method that was called.
        """
        sender = clean(sender, 255) or "an unnamed sender"
        with self._lock:
            self.counts[kind, error.reason] += 1
        if self._hourly.is_news((sender, kind, error.reason)):
            LOG.warning(
                "%s of %s is rejected (%s): %s; more of this kind are counted and not logged",
                kind,
                sender,
                error.reason,
                error,
            )

    def note_unfit(self, sender: str, kind: str, message: Message) -> None:
        """Note what was left out in reading a message."""
        for each in message.unfit:
            self.note(
                sender,
                kind,
                exception.MessageInvalid(f"{each.what} {each.key} is ignored: {each.why}"),
            )
