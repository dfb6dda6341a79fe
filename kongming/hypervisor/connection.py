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

"""The lasting connection to libvirt: receives libvirt's events, and is reopened when lost.

No call is made on it. Calls for guests have connections of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
import functools
import logging
import threading
from typing import Any

import libvirt

from kongming import exception
from kongming.hypervisor.errors import if_supported
from kongming.hypervisor.opener import close
from kongming.hypervisor.unavailable import explain
from kongming.runtime.availability import Availability
from kongming.runtime.heartbeats import Heartbeats
from kongming.runtime.hourly import Hourly
from kongming.runtime.loop import Loop

LOG = logging.getLogger(__name__)

# The connection is restored within this time after libvirtd has restarted.
_RECONNECT_MAX_S = 3.0
# The interval of the event loop's heartbeat, and when it is overdue.
_BEAT_MS = 5_000
_BEAT_OVERDUE_S = 60.0


class Keeper:
    """Keeps one connection open, in a thread of its own.

    :param open_: opens a connection in bounded time; raises HypervisorUnavailable.
    :param events: the events to receive: libvirt's id → callback. None of these may block.
    :param on_subscribed: called each time events are received again, before ``connected`` is set.
    :param on_connect: called each time after that. Neither may block.
    """

    def __init__(
        self,
        uri: str,
        open_: Callable[[], Any],
        events: Mapping[int, Callable[..., None]],
        *,
        on_subscribed: Callable[[], None],
        on_connect: Callable[[], None],
        heartbeats: Heartbeats,
    ) -> None:
        self._uri = uri
        self._open = open_
        self._events = events
        self._on_subscribed = on_subscribed
        self._on_connect = on_connect
        self._heartbeats = heartbeats
        self._connected = False
        self._availability = Availability("libvirt", LOG)
        self._busy = Hourly()
        self._registered: list[int] = []
        self._lost = threading.Event()
        self._loop = Loop(
            "libvirt",
            "connecting to libvirt",
            self._step,
            interval_s=0.0,
            retry_max_s=_RECONNECT_MAX_S,
            on_error=self._report,
        )

    @property
    def connected(self) -> bool:
        """Whether libvirt is available, as far as is known."""
        return self._connected

    def start(self) -> None:
        """Connect in the background."""
        run_event_loop()
        beat = self._heartbeats.expect("libvirt-events", _BEAT_OVERDUE_S)
        libvirt.virEventAddTimeout(_BEAT_MS, lambda _timer, _opaque: beat(), None)
        self._loop.start()

    def stop(self) -> None:
        """Close the connection, without waiting for a libvirt that hangs."""
        self._loop.stop()
        self._lost.set()

    def report_busy(self, error: exception.HypervisorBusy) -> None:
        """Log that libvirt accepts no further connection: once an hour for each reason."""
        if self._busy.should_log(str(error)):
            LOG.warning("%s; waiting for it", error)

    def _report(self, error: exception.KongmingError) -> None:
        self._availability.lost(f"{error}; waiting for it", kind=str(error))

    def _step(self) -> None:
        """Connect, and wait until the connection is lost."""
        connection = self._opened()
        self._on_subscribed()
        self._connected = True
        if self._availability.is_available:
            LOG.info("Connected to libvirt at %s", self._uri)
        self._availability.restored()
        self._on_connect()
        self._lost.wait()
        self._connected = False
        if self._loop.is_stopping:
            close(connection)
            return
        self._discard(connection)
        self._availability.lost(
            f"The connection to libvirt at {self._uri} was lost; waiting for libvirt"
        )

    def _opened(self) -> Any:
        """Open a connection that receives events; raise HypervisorUnavailable."""
        self._lost.clear()
        connection = self._open()
        try:
            self._register(connection)
        except libvirt.libvirtError as error:
            self._discard(connection)
            raise exception.HypervisorUnavailable(explain(error, self._uri)) from error
        return connection

    def _register(self, connection: Any) -> None:
        # Drivers that run in this process can't be lost.
        if_supported(connection.registerCloseCallback, self._closed, None)
        for event, callback in self._events.items():
            self._registered.append(connection.domainEventRegisterAny(None, event, callback, None))

    def _discard(self, connection: Any) -> None:
        """Close a connection. Its callbacks would keep it and its socket alive."""
        while self._registered:
            with suppress(libvirt.libvirtError):
                connection.domainEventDeregisterAny(self._registered.pop())
        with suppress(libvirt.libvirtError):
            connection.unregisterCloseCallback()
        close(connection)

    def _closed(self, _connection: Any, reason: int, _opaque: object) -> None:
        LOG.debug("libvirt closed the connection, reason %d", reason)
        self._lost.set()


@functools.cache
def run_event_loop() -> None:
    """Run libvirt's event loop in a thread: once per process.

    It must run before the first connection is opened.
    """
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=_event_loop, name="libvirt-events", daemon=True).start()


def _event_loop() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
