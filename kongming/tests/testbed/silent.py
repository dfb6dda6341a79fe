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

"""A server that does not respond: it takes connections, and sends nothing on them."""

from __future__ import annotations

import selectors
import socket
import threading

from kongming.tests.testbed.process import Service


class Silent(Service):
    """Listens to a port of its own; a context manager.

    :ivar port: where it listens.
    :ivar connections: how many it has taken.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._taken: list[socket.socket] = []
        self._ending = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="silent", daemon=True)

    @property
    def url(self) -> str:
        """The address, as that of a web server."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Return when it takes connections."""
        self._thread.start()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            for each in (self._listener, self._ending[0]):
                selector.register(each, selectors.EVENT_READ)
            while self._listener in [key.fileobj for key, _ in selector.select()]:
                self._taken.append(self._listener.accept()[0])
                self.connections += 1

    def hang_up(self) -> None:
        """Close all connections, and take no more."""
        self._ending[1].sendall(b"x")
        self._thread.join(30)
        for each in (self._listener, *self._taken):
            each.close()

    def _end(self) -> None:
        if self._thread.is_alive():
            self.hang_up()
        for each in (self._listener, *self._ending):
            each.close()
