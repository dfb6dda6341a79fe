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

"""Whether a database answers: asked as soon as somebody waits for it, and nobody waits in vain.

A host that is lost, or a server that hangs, sends nothing: who reads from it would wait for
minutes. So every wait for a driver is noted here. If one lasts, a connection of its own asks
whether the database answers at all. If it does not, all who wait are told at once, nobody waits
any more, and it is asked each second until it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
import os
import socket
import sys
import threading
import time
from typing import Any, Generic, TypeVar
import weakref

from kongming import exception
from kongming.runtime.server_threads import ServerThreads
from kongming.runtime.threads import of_this_request

T = TypeVar("T")

#: Who waits for longer has the database asked whether it answers; seconds.
PATIENCE_S = 0.25
# What is counted is such steps, not the time: they last longer if this machine is slow.
_STEP_S = 0.05
_AGAIN_S = 1.0


@dataclass(eq=False, slots=True)
class _Wait:
    """One wait for a driver.

    :ivar on_server: when it began, as a thread of a WSGI server counts it.
    :ivar end: ends it.
    :ivar error: why it was ended, if that is to be told.
    """

    began: float
    limit_s: float
    on_server: float
    end: Callable[[exception.KongmingError], object]
    error: exception.KongmingError | None = None

    def lasts(self, seconds: float) -> bool:
        """Tell whether it has lasted for so long."""
        return time.monotonic() - self.began >= seconds


class Attempt(Generic[T]):
    """Some work in a thread of its own, which nobody needs to wait for until it ends.

    :ivar done: set when it is over, or was given up.
    """

    def __init__(self, work: Callable[[], T], drop: Callable[[T], object]) -> None:
        """Begin.

        :param drop: what is done with a result that comes after it was given up.
        """
        self.done = threading.Event()
        self._work = of_this_request(work)
        self._drop = drop
        self._lock = threading.Lock()
        self._results: list[T] = []
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="database attempt", daemon=True).start()

    def give_up(self, error: BaseException) -> None:
        """Have it ended by an error, unless it has ended."""
        with self._lock:
            if not self.done.is_set():
                self._error = error
                self.done.set()

    def result(self) -> T:
        """Wait, and return or raise what has come of it."""
        self.done.wait()
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _run(self) -> None:
        try:
            self._results.append(self._work())
        except BaseException as error:  # noqa: BLE001, it is raised where it is waited for
            self.give_up(error)
            return
        with self._lock:
            if self.done.is_set():
                self._drop(self._results[0])
            self.done.set()


class Liveness:
    """Notes who waits for one database. Any thread may call any method.

    :param place: which database it is, for the operator.
    :param ask: connects and asks; whatever it returns or raises is an answer.
    :param answer_s: after so many seconds without one the database counts as silent.
    :param threads: those of the WSGI server, whose last one nobody may keep.
    """

    def __init__(
        self,
        place: str,
        ask: Callable[[], object],
        answer_s: float,
        threads: ServerThreads | None = None,
    ) -> None:
        self._place = place
        self._ask = ask
        self._threads = threads or ServerThreads(sys.maxsize)
        self._ended = threading.local()
        self._steps = round(answer_s / _STEP_S)
        self._changed = threading.Condition()
        self._waits: set[_Wait] = set()
        self._answers = 0
        self._silent = False
        self._ask_at = 0.0
        self._closed = False
        self._thread: threading.Thread | None = None
        self._lines: weakref.WeakKeyDictionary[Any, socket.socket] = weakref.WeakKeyDictionary()

    def watch(self, connection: Any) -> None:
        """Be able to end the waits for a connection of a driver."""
        number = _file_number(connection)
        if number is not None:
            # A number of its own, which stays that of this line when the driver has closed its.
            self._lines[connection] = socket.socket(fileno=os.dup(number))

    def forget(self, connection: Any) -> None:
        """Leave a connection alone that its driver is about to close."""
        line = self._lines.pop(connection, None)
        if line is not None:
            line.close()

    @contextmanager
    def waiting(self, connection: Any, limit_s: float) -> Iterator[None]:
        """Note a wait for a connection that is watched; it ends by the driver's error.

        :param limit_s: its end in any case.
        """
        line = self._lines.get(connection)
        with self._noted(limit_s, lambda _: None if line is None else _cut(line)) as wait:
            try:
                yield
            finally:
                if wait.error is not None:
                    self._ended.error = wait.error

    def connect(self, make: Callable[[], T], close: Callable[[T], object], limit_s: float) -> T:
        """Return a new connection.

        :raises DatabaseUnavailable: if the database does not answer.
        """
        self.check()
        # Whatever ended the connection before is told by now, or was of no account.
        self._ended.error = None
        attempt = Attempt(make, close)
        with self._noted(limit_s, attempt.give_up):
            return attempt.result()

    def explain(self) -> None:
        """Find out whether the driver's last error in this thread is one of ours.

        :raises DatabaseUnavailable: if the database does not answer.
        :raises ThreadsBusy: if the thread is needed for others.
        """
        self.check()
        error = getattr(self._ended, "error", None)
        if error is not None:
            self._ended.error = None
            raise error

    def check(self) -> None:
        """Find out whether it is worth while to wait for the database.

        :raises DatabaseUnavailable: if it is known not to answer.
        """
        if self._silent:
            raise self._error()

    def close(self) -> None:
        """End what goes on beside; the next wait begins it anew."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _error(self) -> exception.DatabaseUnavailable:
        return exception.DatabaseUnavailable(
            f"{self._place} is unavailable: check that its server runs and is reachable; retried "
            "every second"
        )

    @contextmanager
    def _noted(
        self, limit_s: float, end: Callable[[exception.KongmingError], object]
    ) -> Iterator[_Wait]:
        with self._threads.wait() as on_server:
            wait = _Wait(time.monotonic(), limit_s, on_server, end)
            with self._wait(wait):
                yield wait

    @contextmanager
    def _wait(self, wait: _Wait) -> Iterator[None]:
        with self._changed:
            if not self._waits:
                self._changed.notify()
            self._waits.add(wait)
            self._closed = False
            # After a fork there is none in the child.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="database", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._waits.discard(wait)
                self._answers += 1

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waits or self._silent)
                if self._closed and not self._waits:
                    self._silent, self._thread = False, None
                    return
            self._look()
            time.sleep(_STEP_S)

    def _look(self) -> None:
        with self._changed:
            lasting = any(wait.lasts(PATIENCE_S) for wait in self._waits)
        if (lasting or self._silent) and time.monotonic() >= self._ask_at:
            self._silent = not self._answered()
            self._ask_at = time.monotonic() + _AGAIN_S
        self._end_waits()

    def _end_waits(self) -> None:
        """End those that have lasted long enough."""
        # With the lock: the connection of who has ended waiting may be somebody else's.
        with self._changed:
            for wait in self._waits:
                if wait.lasts(PATIENCE_S if self._silent else wait.limit_s):
                    wait.end(self._error())
                elif self._has_last_thread(wait):
                    wait.error = _busy()
                    wait.end(wait.error)

    def _has_last_thread(self, wait: _Wait) -> bool:
        with self._threads.changed:
            return self._threads.must_end(wait.on_server)

    def _answered(self) -> bool:
        """Ask; tell whether there was an answer, to this question or to anybody."""
        before = self._answers
        question = Attempt(self._ask, lambda _: None)
        for _ in range(self._steps):
            if question.done.wait(_STEP_S):
                return True
            self._end_waits()
        return not self._silent and self._answers != before


def _busy() -> exception.ThreadsBusy:
    return exception.ThreadsBusy("too many requests wait for the database: retry in a second")


def _file_number(connection: Any) -> int | None:
    # PyMySQL has no other way to it.
    owner = connection if hasattr(connection, "fileno") else getattr(connection, "_sock", None)
    return None if owner is None else int(owner.fileno())


def _cut(line: socket.socket) -> None:
    # The other side may have closed it, or its owner.
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
