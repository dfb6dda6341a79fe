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

"""Hints that are sent in the background: they may get lost, and never block the caller.

RabbitMQ accepts no messages while its memory or disk alarm is on, and a sender blocks meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import logging
import threading
from typing import Generic, TypeVar

from kongming import exception
from kongming.runtime.hourly import Hourly

LOG = logging.getLogger(__name__)

#: The most instances whose hints wait to be sent.
WAITING_MAX = 10_000

_Hint = TypeVar("_Hint")


class Outbox(Generic[_Hint]):
    """A sender of hints about instances, one message at a time. Thread-safe.

    :param what: the hints, as the subject of a sentence.
    :param send: sends to one receiver, or raises :class:`~kongming.exception.Unresponsive`.
    :param newer: returns the newer of two hints about an instance.
    """

    def __init__(
        self,
        what: str,
        send: Callable[[str, Mapping[str, _Hint]], None],
        newer: Callable[[_Hint, _Hint], _Hint],
    ) -> None:
        self._what = what
        self._send = send
        self._newer = newer
        self._changed = threading.Condition()
        self._waiting: dict[str, dict[str, _Hint]] = {}
        self._sending = 0
        self._dropped = 0
        self._dropped_before = 0
        self._hourly = Hourly()
        self._thread: threading.Thread | None = None

    @property
    def dropped(self) -> int:
        """The number of hints that were dropped since the start; one per instance."""
        return self._dropped

    @property
    def waiting(self) -> int:
        """The number of hints that wait to be sent."""
        with self._changed:
            return self._count()

    def put(self, receiver: str, hints: Mapping[str, _Hint]) -> None:
        """Add hints to be sent soon; a newer hint about an instance replaces the waiting one."""
        with self._changed:
            waiting = self._waiting.pop(receiver, {})
            known = hints.keys() & waiting.keys()
            waiting |= {uuid: self._newer(waiting[uuid], hints[uuid]) for uuid in known}
            added = [uuid for uuid in hints if uuid not in known]
            room = WAITING_MAX - self._count() - len(waiting)
            waiting |= {uuid: hints[uuid] for uuid in added[:room]}
            if waiting:
                self._waiting[receiver] = waiting
            if added[room:]:
                self._drop(len(added[room:]), f"{WAITING_MAX} are waiting already")
            # After a fork the child has no thread.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until all hints are sent or dropped; return False after the timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._count() and not self._sending, timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._count)
                receiver = next(iter(self._waiting))
                hints = self._waiting.pop(receiver)
                self._sending = len(hints)
            error = self._try_to_send(receiver, hints)
            with self._changed:
                if error is None:
                    self._log_recovery()
                elif error.others_too:
                    # The others would fail, too, each after a timeout.
                    self._drop(len(hints) + self._count(), str(error))
                    self._waiting.clear()
                else:
                    self._drop_for(receiver, len(hints), str(error))
                self._sending = 0
                self._changed.notify_all()

    def _try_to_send(
        self, receiver: str, hints: Mapping[str, _Hint]
    ) -> exception.Unresponsive | None:
        """Send the hints; return the error, or None."""
        try:
            self._send(receiver, hints)
        except exception.Unresponsive as error:
            return error
        except Exception as error:
            LOG.exception("A fault of Kongming in sending hints")
            return exception.Unresponsive(f"a fault of Kongming ({type(error).__name__})")
        return None

    def _drop_for(self, receiver: str, number: int, why: str) -> None:
        """Drop hints that only this receiver does not get."""
        self._dropped += number
        self._dropped_before += number
        if self._hourly.should_log(receiver):
            LOG.warning(
                "%s are dropped: %s; the receiver gets all changes at its next pull",
                self._what,
                why,
            )

    def _count(self) -> int:
        return sum(map(len, self._waiting.values()))

    def _drop(self, number: int, why: str) -> None:
        if self._dropped == self._dropped_before:
            LOG.warning(
                "%s are dropped: %s; executors get all changes at their next pull", self._what, why
            )
        self._dropped += number

    def _log_recovery(self) -> None:
        missing, self._dropped_before = self._dropped - self._dropped_before, self._dropped
        if missing:
            LOG.info(
                "%s are sent again; those about %d instances were dropped", self._what, missing
            )
