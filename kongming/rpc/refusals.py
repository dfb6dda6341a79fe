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

"""Refused messages: counted, and logged once an hour for each sender and kind."""

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
    """The messages, and parts of messages, that one service refused. Thread-safe.

    :ivar counts: their number, by kind (the called method) and reason code.
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._hourly = Hourly()

    def note(self, sender: str, kind: str, error: exception.MessageRefused) -> None:
        """Count and log a refused message.

        :param sender: the sender that the message names.
        :param kind: the called method.
        """
        sender = clean(sender, 255) or "an unnamed sender"
        with self._lock:
            self.counts[kind, error.reason] += 1
        if self._hourly.should_log((sender, kind, error.reason)):
            LOG.warning(
                "%s of %s is rejected (%s): %s; more of this kind are counted and not logged",
                kind,
                sender,
                error.reason,
                error,
            )

    def note_left_out(self, sender: str, kind: str, message: Message) -> None:
        """Count and log the invalid items of a message."""
        for each in message.left_out:
            self.note(
                sender,
                kind,
                exception.MessageInvalid(f"{each.field} {each.key} is ignored: {each.message}"),
            )
