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

"""Signals: they are held from the first line of a service on, and acted on when that can be.

A handler only lets Python write a byte to a socket; who acts reads it. A signal that comes just
before a lock is acquired would not end the wait for it, and its handler would wait as long.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket

#: What ends a service.
END = signal.SIGTERM
#: What has it read its configuration anew.
RELOAD = signal.SIGHUP


class Signals:
    """The signals of this process that concern a service; from its making on none of them is lost.

    It can be made in the main thread only. As process 1 of a container a service needs it,
    too: the kernel gives that process only what it has a handler for.
    """

    def __init__(self) -> None:
        self._wakeup, self._written = socket.socketpair()
        self._written.setblocking(False)
        self._came: list[int] = []
        signal.set_wakeup_fd(self._written.fileno(), warn_on_full_buffer=False)
        for number in (END, RELOAD):
            signal.signal(number, lambda _number, _frame: None)
        # Somebody at a terminal does not wait.
        signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(1))

    def wait(self, timeout: float | None) -> int | None:
        """Return the next signal that came; None if none does within so many seconds."""
        if not self._came:
            self._wakeup.settimeout(timeout)
            try:
                self._came += self._wakeup.recv(256)
            except (TimeoutError, BlockingIOError):
                return None
        return self._came.pop(0)

    def end_came(self) -> bool:
        """Tell whether the service is to end; what has come besides is kept."""
        self._wakeup.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            self._came += self._wakeup.recv(256)
        return END in self._came

    def wake(self) -> None:
        """Have the thread that waits end the service; any thread may call this."""
        self._written.send(bytes([END]))
