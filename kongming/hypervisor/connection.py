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

"""The connection to libvirt: kept open, opened again when lost, its events.

Every guest and all that is known of the host are got from here.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import logging
import threading
from typing import Any

import libvirt

from kongming import exception
from kongming.backoff import Backoff
from kongming.hypervisor import host
from kongming.hypervisor.guest import Guest, is_alive

LOG = logging.getLogger(__name__)

_RECONNECT_MAX = 30.0
_NOT_RUNNING = -1

# A guest is there with all its vCPU threads once one of these was seen.
_BEGINNINGS = frozenset({libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_RESUMED})


class Connection:
    """A lasting connection to one libvirt URI.

    :param on_connect: called each time the connection has come about.
    :param on_guest_start: called with the instance UUID when a guest starts
        or goes on. Neither may block: libvirt's events wait for them.
    """

    def __init__(
        self,
        uri: str,
        *,
        keepalive: tuple[int, int],
        on_connect: Callable[[], None],
        on_guest_start: Callable[[str], None],
    ) -> None:
        self._uri = uri
        self._here = host.is_here(uri)
        self._keepalive = keepalive
        self._on_connect = on_connect
        self._on_guest_start = on_guest_start
        self._connection: Any = None
        self._lost = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="libvirt", daemon=True)

    def start(self) -> None:
        """Connect, in a thread of its own; returns at once."""
        run_event_loop()
        self._thread.start()

    def stop(self) -> None:
        """Give up the connection; a libvirt that hangs is not waited for."""
        self._stopping.set()
        self._lost.set()

    def guest(self, instance_uuid: str) -> Guest:
        """Look up a guest.

        :raises GuestAbsent: if there is no such domain on this host.
        :raises HypervisorUnavailable: if libvirt does not answer.
        """
        connection = self._connection
        if connection is None:
            raise exception.HypervisorUnavailable(f"no connection to libvirt at {self._uri}")
        try:
            domain = connection.lookupByUUIDString(instance_uuid)
            if domain.ID() == _NOT_RUNNING:
                raise exception.GuestAbsent("the domain is not running")
            cpus = host.read_sysfs() if self._here else host.read_libvirt(connection)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                raise exception.GuestAbsent("there is no such domain on this host") from error
            if not is_alive(connection):
                raise exception.HypervisorUnavailable(
                    f"libvirt at {self._uri} went away"
                ) from error
            raise exception.Failed(
                f"libvirt error {error.get_error_code()}: {error.get_error_message()}"
            ) from error
        return Guest(domain, cpus)

    def _run(self) -> None:
        backoff = Backoff(maximum=_RECONNECT_MAX)
        while not self._stopping.is_set():
            connection, error = self._try_to_open()
            if connection is None:
                if backoff.first:
                    LOG.warning(
                        "libvirt at %s does not answer (%s): waiting for it; is libvirtd "
                        "running, and may this user connect to it?",
                        self._uri,
                        error,
                    )
                self._stopping.wait(backoff.next())
                continue
            backoff.reset()
            self._connection = connection
            LOG.info("Connected to libvirt at %s", self._uri)
            self._on_connect()
            self._lost.wait()
            self._connection = None
            _close(connection)
            if not self._stopping.is_set():
                LOG.warning("The connection to libvirt at %s was lost: waiting for it", self._uri)

    def _try_to_open(self) -> tuple[Any, str]:
        try:
            return self._open(), ""
        except libvirt.libvirtError as error:
            return None, error.get_error_message()

    def _open(self) -> Any:
        self._lost.clear()
        connection = libvirt.open(self._uri)
        try:
            connection.setKeepAlive(*self._keepalive)
        except libvirt.libvirtError as error:
            # Drivers that run in this process can't be lost.
            if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
                raise
        else:
            connection.registerCloseCallback(self._closed, None)
        connection.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle, None
        )
        return connection

    def _closed(self, _connection: Any, reason: int, _opaque: object) -> None:
        LOG.debug("libvirt closed the connection, reason %d", reason)
        self._lost.set()

    def _lifecycle(
        self, _connection: Any, domain: Any, event: int, detail: int, _opaque: object
    ) -> None:
        LOG.debug("Domain %s: lifecycle event %d, detail %d", domain.UUIDString(), event, detail)
        if event in _BEGINNINGS:
            self._on_guest_start(domain.UUIDString())


def _close(connection: Any) -> None:
    try:
        connection.close()
    except libvirt.libvirtError as error:
        LOG.debug("Closing the lost connection: %s", error)


@functools.cache
def run_event_loop() -> None:
    """Run libvirt's event loop in a thread: once for each process.

    It must run before the first connection is opened.
    """
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=_event_loop, name="libvirt-events", daemon=True).start()


def _event_loop() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
