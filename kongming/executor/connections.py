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

"""The executor's connections to libvirt: one for events, and a pool for the calls of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from kongming import exception
from kongming.hypervisor.connection import Keeper
from kongming.hypervisor.hypervisor import Hypervisor
from kongming.hypervisor.opener import Opener
from kongming.hypervisor.pool import Pool
from kongming.runtime.heartbeats import Heartbeats

# Time for closing connections; an available libvirt takes milliseconds.
_CLOSE_TIMEOUT_S = 2.0


class Connections:
    """Keeps the connections to libvirt, and lends them to a hypervisor.

    :param on_lifecycle: called with an instance whose guest started, resumed or stopped.
    :param on_change: called with an instance whose guest was changed.
    :param on_connect: called each time libvirt has become available.
    :param store: returns the identity of the store.
    :ivar hypervisor: what uses them.
    """

    def __init__(
        self,
        uri: str,
        keepalive: tuple[int, int],
        *,
        on_lifecycle: Callable[[str], None],
        on_change: Callable[[str], None],
        on_connect: Callable[[], None],
        store: Callable[[], str],
        heartbeats: Heartbeats,
    ) -> None:
        opener = Opener.of(uri, keepalive)
        self._pool = Pool(opener.open)
        self.hypervisor = Hypervisor(
            uri, self._lend, on_lifecycle=on_lifecycle, on_change=on_change, store=store
        )
        self._keeper = Keeper(
            uri,
            opener.open,
            self.hypervisor.events,
            on_subscribed=self.hypervisor.invalidate,
            on_connect=on_connect,
            heartbeats=heartbeats,
        )

    def start(self) -> None:
        """Connect; returns at once."""
        self._keeper.start()

    def stop(self) -> None:
        """Close all connections."""
        self._keeper.stop()
        self._pool.close(_CLOSE_TIMEOUT_S)

    @property
    def connected(self) -> bool:
        """Whether libvirt is available."""
        return self._keeper.connected

    @contextmanager
    def _lend(self) -> Iterator[Any]:
        # Opening a connection to a hung libvirt would block.
        if not self._keeper.connected:
            raise exception.HypervisorUnavailable("there is no connection to libvirt")
        busy = None
        with ExitStack() as stack:
            try:
                connection = stack.enter_context(self._pool.lend())
            except exception.HypervisorUnavailable as error:
                busy = exception.HypervisorBusy(str(error))
            else:
                yield connection
        if busy is not None:
            self._keeper.report_busy(busy)
            raise busy
