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

"""Connections to libvirt for calls: each is lent to one thread at a time.

libvirt's Python binding crashes if a connection is closed while another thread is in a
call on it, and libvirtd cuts connections with more than a few calls in flight. On a
connection of one's own neither can be: it is closed by the thread that has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import threading
from typing import Any

import libvirt

from kongming.hypervisor.opener import close

# So many that nobody uses are kept.
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
            self._take_back(connection)

    def close(self, timeout: float) -> None:
        """Close those that nobody uses; where libvirt hangs the process's end does it.

        :param timeout: seconds that libvirt has for its answers.
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

    def _take_back(self, connection: Any) -> None:
        if is_alive(connection):
            with self._lock:
                if len(self._idle) < _IDLE_MAX:
                    self._idle.append(connection)
                    return
        close(connection)


def is_alive(connection: Any) -> bool:
    """Tell whether a libvirt connection still serves."""
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False
