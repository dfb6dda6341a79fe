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

"""Hints that are sent where nobody waits for it: they may get lost, and hold up nobody.

RabbitMQ takes no messages while its memory or disk alarm is on, and who sends one then waits as
long as that lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import logging
import threading
from typing import Generic, TypeVar

from kongming import exception
from kongming.runtime.hourly import Hourly

LOG = logging.getLogger(__name__)

#: The most instances whose hints may wait.
WAITING_MAX = 10_000

_Hint = TypeVar("_Hint")


class Outbox(Generic[_Hint]):
    """Sends hints about instances to receivers, one message at a time. Any thread may call it.

    :param what: the hints, as a sentence begins with them.
    :param send: sends to one receiver; raises :class:`~kongming.exception.Silent` if it can't.
    :param newer: returns the newer one of two hints about an instance.
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
        """Return how many hints were not sent, since the start; one for each instance."""
        return self._dropped

    @property
    def waiting(self) -> int:
        """Return how many hints wait to be sent."""
        with self._changed:
            return self._count()

    def put(self, receiver: str, hints: Mapping[str, _Hint]) -> None:
        """Have hints sent soon; a newer one about the same instance replaces one that waits."""
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
            # After a fork there is none in the child.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until all is sent or dropped, at most so many seconds; tell whether it is."""
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
                    self._tell_sent()
                elif error.others_too:
                    # None of the others could be sent either, and each takes its time.
                    self._drop(len(hints) + self._count(), str(error))
                    self._waiting.clear()
                else:
                    self._refused(receiver, len(hints), str(error))
                self._sending = 0
                self._changed.notify_all()

    def _try_to_send(self, receiver: str, hints: Mapping[str, _Hint]) -> exception.Silent | None:
        """Send; return why it can't be done, None if it is."""
        try:
            self._send(receiver, hints)
        except exception.Silent as error:
            return error
        except Exception as error:
            LOG.exception("A fault of Kongming in sending hints")
            return exception.Silent(f"a fault of Kongming ({type(error).__name__})")
        return None

    def _refused(self, receiver: str, number: int, why: str) -> None:
        """Drop what one receiver does not take; the others get theirs."""
        self._dropped += number
        self._dropped_before += number
        if self._hourly.is_news(receiver):
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

    def _tell_sent(self) -> None:
        missing, self._dropped_before = self._dropped - self._dropped_before, self._dropped
        if missing:
            LOG.info(
                "%s are sent again; those about %d instances were dropped", self._what, missing
            )
