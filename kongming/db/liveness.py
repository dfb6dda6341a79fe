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

"""Detection of an unresponsive database, so that threads don't wait for it in vain.

A lost host or a server that hangs sends nothing: a reader would wait for minutes. So every wait
for a driver is registered here. If one lasts, a probe over a connection of its own shows whether
the database responds. If it does not, all waits are ended, new ones fail at once, and the probe is
repeated every second until the database responds.
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
from kongming.runtime.threads import with_request_context

T = TypeVar("T")

#: Waits that last longer cause a probe; seconds.
PROBE_AFTER_S = 0.25
# Steps are counted, not the time: they take longer on a slow machine.
_STEP_S = 0.05
_RETRY_S = 1.0


@dataclass(eq=False, slots=True)
class _Wait:
    """A wait for a driver.

    :ivar on_server: its beginning, as registered by the WSGI server's threads.
    :ivar end: ends it.
    :ivar ended: whether it was ended.
    :ivar error: the error to raise for it, if it was ended.
    """

    began: float
    limit_s: float
    on_server: float
    end: Callable[[exception.KongmingError], object]
    ended: bool = False
    error: exception.KongmingError | None = None

    def lasts(self, seconds: float) -> bool:
        return time.monotonic() - self.began >= seconds


class Attempt(Generic[T]):
    """Some work in a thread of its own, which can be abandoned before it ends.

    :ivar done: set when it has ended or was abandoned.
    """

    def __init__(self, work: Callable[[], T], drop: Callable[[T], object]) -> None:
        """Start the thread.

        :param drop: is called with a result that comes after the attempt was abandoned.
        """
        self.done = threading.Event()
        self._work = with_request_context(work)
        self._drop = drop
        self._lock = threading.Lock()
        self._results: list[T] = []
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="database attempt", daemon=True).start()

    @property
    def timed_out(self) -> bool:
        """Whether the work has raised a TimeoutError."""
        return isinstance(self._error, TimeoutError)

    def abandon(self, error: BaseException) -> None:
        """Have :meth:`result` raise an error, unless the work has ended."""
        with self._lock:
            if not self.done.is_set():
                self._error = error
                self.done.set()

    def result(self) -> T:
        """Wait for the result and return it, or raise the error."""
        self.done.wait()
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _run(self) -> None:
        try:
            self._results.append(self._work())
        except BaseException as error:  # noqa: BLE001, result() raises it
            self.abandon(error)
            return
        with self._lock:
            if self.done.is_set():
                self._drop(self._results[0])
            self.done.set()


class Liveness:
    """The waits for one database. Any thread may call any method.

    :param place: the name of the database, for the operator.
    :param probe: connects and sends a query; the database is responsive if it returns, or raises
        anything but a TimeoutError.
    :param answer_s: seconds without a response until the database counts as unresponsive.
    :param threads: those of the WSGI server; its last free thread must not wait.
    """

    def __init__(
        self,
        place: str,
        probe: Callable[[], object],
        answer_s: float,
        threads: ServerThreads | None = None,
    ) -> None:
        self._place = place
        self._probe = probe
        self._threads = threads or ServerThreads(sys.maxsize)
        self._ended = threading.local()
        self._steps = round(answer_s / _STEP_S)
        self._changed = threading.Condition()
        self._waits: set[_Wait] = set()
        self._answers = 0
        self._unresponsive = False
        self._probe_at = 0.0
        self._closed = False
        self._thread: threading.Thread | None = None
        self._lines: weakref.WeakKeyDictionary[Any, socket.socket] = weakref.WeakKeyDictionary()

    def watch(self, connection: Any) -> None:
        """Allow the waits for a driver's connection to be ended."""
        number = _file_number(connection)
        if number is not None:
            # A duplicate stays valid when the driver has closed its own descriptor.
            self._lines[connection] = socket.socket(fileno=os.dup(number))

    def forget(self, connection: Any) -> None:
        """Stop watching a connection that its driver is about to close."""
        line = self._lines.pop(connection, None)
        if line is not None:
            line.close()

    @contextmanager
    def waiting(self, connection: Any, limit_s: float) -> Iterator[None]:
        """Register a wait for a connection that is watched; if ended, the driver raises an error.

        :param limit_s: the longest time it may take in any case.
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

        :raises DatabaseUnavailable: if the database is unresponsive.
        """
        self.check()
        # The error of an earlier connection was raised already, or was handled.
        self._ended.error = None
        attempt = Attempt(make, close)
        with self._noted(limit_s, attempt.abandon):
            return attempt.result()

    def explain(self) -> None:
        """Raise the reason for the driver's last error in this thread, if this object caused it.

        :raises DatabaseUnavailable: if the database is unresponsive.
        :raises ThreadsBusy: if other requests need the thread.
        """
        self.check()
        error = getattr(self._ended, "error", None)
        if error is not None:
            self._ended.error = None
            raise error

    def check(self) -> None:
        """Raise an error instead of waiting for an unresponsive database.

        :raises DatabaseUnavailable: if it is unresponsive.
        """
        if self._unresponsive:
            raise self._error()

    def close(self) -> None:
        """End the thread; the next wait starts a new one."""
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
            # After a fork the child has no thread.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="database", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._waits.discard(wait)
                self._answers += not wait.ended

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waits or self._unresponsive)
                if self._closed and not self._waits:
                    self._unresponsive, self._thread = False, None
                    return
            self._check_waits()
            time.sleep(_STEP_S)

    def _check_waits(self) -> None:
        with self._changed:
            lasting = any(wait.lasts(PROBE_AFTER_S) for wait in self._waits)
        if (lasting or self._unresponsive) and time.monotonic() >= self._probe_at:
            self._unresponsive = not self._responds()
            self._probe_at = time.monotonic() + _RETRY_S
        self._end_waits()

    def _end_waits(self) -> None:
        """End the waits that have lasted long enough."""
        # With the lock: after its wait a connection may be used by another thread.
        with self._changed:
            for wait in self._waits:
                if wait.lasts(PROBE_AFTER_S if self._unresponsive else wait.limit_s):
                    wait.ended = True
                    wait.end(self._error())
                elif self._has_last_thread(wait):
                    wait.ended, wait.error = True, _busy()
                    wait.end(wait.error)

    def _has_last_thread(self, wait: _Wait) -> bool:
        with self._threads.changed:
            return self._threads.must_end(wait.on_server)

    def _responds(self) -> bool:
        """Probe the database; return whether it responded, to the probe or to any wait."""
        before = self._answers
        probe = Attempt(self._probe, lambda _: None)
        for _ in range(self._steps):
            if probe.done.wait(_STEP_S):
                if not probe.timed_out:
                    return True
                break
            self._end_waits()
        return not self._unresponsive and self._answers != before


def _busy() -> exception.ThreadsBusy:
    return exception.ThreadsBusy("too many requests wait for the database: retry in a second")


def _file_number(connection: Any) -> int | None:
    # PyMySQL has no public way to it.
    owner = connection if hasattr(connection, "fileno") else getattr(connection, "_sock", None)
    return None if owner is None else int(owner.fileno())


def _cut(line: socket.socket) -> None:
    # The peer or the owner may have closed it.
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
