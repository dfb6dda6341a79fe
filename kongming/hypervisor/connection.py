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

"""The connection to libvirt: made when libvirt is there, made anew when lost.

Guests, their events and all that is known of the host are got from here.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import logging
import re
import threading
from typing import Any

import libvirt

from kongming import exception
from kongming.backoff import Backoff
from kongming.cpuset import CpuSet
from kongming.hypervisor import capabilities, host
from kongming.hypervisor.guest import Guest, is_alive
from kongming.hypervisor.occupancy import Occupancy
from kongming.hypervisor.occupant import Occupant
from kongming.hypervisor.own_changes import OwnChanges
from kongming.hypervisor.process import Processes, QemuProcess
from kongming.hypervisor.topology import Topology

LOG = logging.getLogger(__name__)


_RECONNECT_MAX = 30.0

_VCPU_PIN = re.compile(r"cputune\.vcpupin([0-9]+)")

# A guest has all its vCPU threads once one of the first two was seen.
_HAPPENINGS = frozenset(
    {
        libvirt.VIR_DOMAIN_EVENT_STARTED,
        libvirt.VIR_DOMAIN_EVENT_RESUMED,
        libvirt.VIR_DOMAIN_EVENT_STOPPED,
        libvirt.VIR_DOMAIN_EVENT_UNDEFINED,
    }
)


class Connection:
    """A lasting connection to one libvirt URI.

    :param on_connect: called each time the connection has come about.
    :param on_happening: called with the instance UUID when a guest starts,
        goes on or stops.
    :param on_change: called when somebody else has changed a guest. None of
        these may block: libvirt's events wait for them.
    """

    def __init__(
        self,
        uri: str,
        *,
        keepalive: tuple[int, int] | None = None,
        on_connect: Callable[[], None] = lambda: None,
        on_happening: Callable[[str], None] = lambda _instance_uuid: None,
        on_change: Callable[[str], None] = lambda _instance_uuid: None,
    ) -> None:
        self._uri = uri
        self._here = host.is_here(uri)
        self._keepalive = keepalive
        self._on_connect = on_connect
        self._on_happening = on_happening
        self._on_change = on_change
        self._connection: Any = None
        self._own_changes = OwnChanges()
        self._processes = Processes()
        self._occupancy = Occupancy()
        self._lost = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="libvirt", daemon=True)

    def start(self) -> None:
        """Connect, in a thread of its own; returns at once."""
        run_event_loop()
        self._thread.start()

    def adopt(self, connection: Any) -> None:
        """Use a connection that somebody else has opened, without events.

        For tools that look once and end.
        """
        self._connection = connection

    def stop(self) -> None:
        """Give up the connection; a libvirt that hangs is not waited for."""
        self._stopping.set()
        self._lost.set()

    @property
    def connected(self) -> bool:
        """Tell whether libvirt answers, as far as is known."""
        return self._connection is not None

    def online_cpus(self) -> CpuSet | None:
        """Ask the kernel which CPUs are online; None if it isn't beside us."""
        return host.online_cpus() if self._here else None

    def guest(self, instance_uuid: str) -> Guest:
        """Look up a guest.

        :raises GuestAbsent: if there is no such domain, or it is not running.
        :raises HypervisorUnavailable: if libvirt does not answer.
        """
        connection = self._connected()
        try:
            domain = connection.lookupByUUIDString(instance_uuid)
            now = host.read_sysfs() if self._here else host.read_libvirt(connection)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                raise exception.GuestAbsent("there is no such domain on this host") from error
            raise self._translated(connection, error) from error
        return Guest(domain, now, self._find_process, self._own_changes)

    def occupants(self) -> list[Occupant]:
        """Say who runs on this host, pinned to which CPUs.

        :raises HypervisorUnavailable: if libvirt does not answer.
        """
        connection = self._connected()
        try:
            return self._occupancy.read(connection, self.online_cpus())
        except libvirt.libvirtError as error:
            raise self._translated(connection, error) from error

    def topology(self) -> Topology:
        """Say what the host is made of.

        :raises HypervisorUnavailable: if libvirt does not answer.
        :raises Failed: if it gives an error.
        """
        connection = self._connected()
        try:
            return capabilities.read(connection, host.SYSTEM / "cpu" if self._here else None)
        except libvirt.libvirtError as error:
            raise self._translated(connection, error) from error

    def _find_process(self, instance_uuid: str) -> QemuProcess | None:
        return self._processes.find(instance_uuid) if self._here else None

    def _connected(self) -> Any:
        connection = self._connection
        if connection is None:
            raise exception.HypervisorUnavailable(f"no connection to libvirt at {self._uri}")
        return connection

    def _translated(self, connection: Any, error: libvirt.libvirtError) -> exception.KongmingError:
        if not is_alive(connection):
            return exception.HypervisorUnavailable(f"libvirt at {self._uri} went away")
        return exception.Failed(
            f"libvirt error {error.get_error_code()}: {error.get_error_message()}"
        )

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
            self._occupancy.forget()
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
            if self._keepalive is not None:
                connection.setKeepAlive(*self._keepalive)
        except libvirt.libvirtError as error:
            # Drivers that run in this process can't be lost.
            if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
                raise
        else:
            connection.registerCloseCallback(self._closed, None)
        for event, callback in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_TUNABLE, self._tuned),
        ):
            connection.domainEventRegisterAny(None, event, callback, None)
        return connection

    def _closed(self, _connection: Any, reason: int, _opaque: object) -> None:
        LOG.debug("libvirt closed the connection, reason %d", reason)
        self._lost.set()

    def _lifecycle(
        self, _connection: Any, domain: Any, event: int, detail: int, _opaque: object
    ) -> None:
        instance_uuid = domain.UUIDString()
        LOG.debug("Domain %s: lifecycle event %d, detail %d", instance_uuid, event, detail)
        self._occupancy.forget(instance_uuid)
        if event in _HAPPENINGS:
            self._on_happening(instance_uuid)

    def _tuned(self, _connection: Any, domain: Any, changes: Any, _opaque: object) -> None:
        instance_uuid = domain.UUIDString()
        for name, value in changes.items():
            if vcpu := _VCPU_PIN.fullmatch(name):
                self._occupancy.note_pin(instance_uuid, int(vcpu[1]), CpuSet.parse(value))
        if not self._own_changes.recognise(instance_uuid, changes):
            LOG.debug("Domain %s: changed by others: %s", instance_uuid, changes)
            self._on_change(instance_uuid)


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
