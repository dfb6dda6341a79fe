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

"""Connections to libvirt for calls, each lent to one thread at a time.

libvirt's Python binding crashes if a connection is closed while another thread uses it, and
libvirtd closes connections with more than a few calls in flight. A connection that only one thread
uses, and closes, avoids both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import threading
from typing import Any

import libvirt

from kongming.hypervisor.opener import close

# The most idle connections.
_IDLE_MAX = 8


class Pool:
    """Opens connections as they are needed. Any thread may call any method.

    :param open_: opens one; raises HypervisorUnavailable.
    """

    def __init__(self, open_: Callable[[], Any]) -> None:
        self._open = open_
        self._lock = threading.Lock()
        self._idle: list[Any] = []

    @contextmanager
    def lend(self) -> Iterator[Any]:
        """Lend a connection to the calling thread.

        :raises HypervisorUnavailable: if none can be opened.
        """
        connection = self._take()
        try:
            yield connection
        finally:
            self._return(connection)

    def close(self, timeout: float) -> None:
        """Close idle connections; if libvirt hangs, they end with the process.

        :param timeout: how long to wait for libvirt, in seconds.
        """
        with self._lock:
            idle, self._idle = self._idle, []

        def close_all() -> None:
            for connection in idle:
                close(connection)

        closing = threading.Thread(target=close_all, name="pool-close", daemon=True)
        closing.start()
        closing.join(timeout)

    def _take(self) -> Any:
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._open()
            if is_alive(connection):
                return connection
            close(connection)

    def _return(self, connection: Any) -> None:
        if is_alive(connection):
            with self._lock:
                if len(self._idle) < _IDLE_MAX:
                    self._idle.append(connection)
                    return
        close(connection)


def is_alive(connection: Any) -> bool:
    """Return whether a libvirt connection still works."""
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False
