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

"""Signals: they are queued from the first line of a service on, and handled when it is ready.

A handler only has Python write a byte to a socket, which the main thread reads. A signal that
arrives just before a lock is acquired would not interrupt the wait for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket

#: Ends a service.
END = signal.SIGTERM
#: Reloads its configuration.
RELOAD = signal.SIGHUP
#: Has it write a report.
REPORT = signal.SIGUSR2


class Signals:
    """The signals of a service; from the construction on none of them is lost.

    It can be constructed in the main thread only. A service that is process 1 of a container
    needs it, too: the kernel delivers only signals with a handler to that process.
    """

    def __init__(self) -> None:
        self._wakeup, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._received: list[int] = []
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in (END, RELOAD, REPORT):
            signal.signal(number, lambda _number, _frame: None)
        # At a terminal, Ctrl-C ends the process at once.
        signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(1))

    def wait(self, timeout: float | None) -> int | None:
        """Return the next signal; None if none arrives within the timeout, in seconds."""
        if not self._received:
            self._wakeup.settimeout(timeout)
            try:
                self._received += self._wakeup.recv(256)
            except (TimeoutError, BlockingIOError):
                return None
        return self._received.pop(0)

    def end_requested(self) -> bool:
        """Return whether SIGTERM has arrived; other signals stay queued."""
        self._wakeup.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            self._received += self._wakeup.recv(256)
        return END in self._received

    def wake(self) -> None:
        """End the service as SIGTERM does; any thread may call this."""
        self._writer.send(bytes([END]))
