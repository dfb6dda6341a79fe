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

"""libvirt on this host: its guests, their events, and the host's topology."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
import logging
import re
from typing import Any

import libvirt

from kongming import exception
from kongming.allocation.cpuset import CpuSet
from kongming.host.occupant import Occupant
from kongming.host.topology import Topology
from kongming.hypervisor import capabilities, cgroup, host, locality, saved_image
from kongming.hypervisor.calls import Calls
from kongming.hypervisor.errors import has_stopped
from kongming.hypervisor.files import reason
from kongming.hypervisor.guest import Guest
from kongming.hypervisor.host import Host
from kongming.hypervisor.kernel_files import KernelFiles
from kongming.hypervisor.locality import Locality
from kongming.hypervisor.lost_cpus import LostCpus
from kongming.hypervisor.observer import Observer
from kongming.hypervisor.occupancy import Occupancy
from kongming.hypervisor.own_changes import OwnChanges
from kongming.hypervisor.pool import is_alive
from kongming.hypervisor.process import NOT_FOUND, Processes
from kongming.hypervisor.unavailable import forbids
from kongming.hypervisor.visibility import GROUPS, Visibility, hidden_groups, hidden_threads

LOG = logging.getLogger(__name__)

_VCPU_PIN = re.compile(r"cputune\.vcpupin([0-9]+)")

# A guest has all its vCPU threads after one of the first two.
_LIFECYCLE = frozenset(
    {
        libvirt.VIR_DOMAIN_EVENT_STARTED,
        libvirt.VIR_DOMAIN_EVENT_RESUMED,
        libvirt.VIR_DOMAIN_EVENT_STOPPED,
        libvirt.VIR_DOMAIN_EVENT_UNDEFINED,
    }
)
_ENDINGS = (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_UNDEFINED)
_MIGRATED = (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED)
# The most guests whose migration is remembered until it is processed.
_MIGRATED_MAX = 1024


class Hypervisor:
    """Looks up guests and the host at one libvirt URI. Any thread may call any method.

    :param lend: lends a connection to the calling thread; raises HypervisorUnavailable.
    :param on_lifecycle: called with the instance UUID when a guest starts, resumes or stops.
    :param on_change: called when another client has changed a guest. Neither may block: libvirt's
        events wait for them.
    :param store: returns the identity of the store that has the requests, for the baselines.
    :param files: the kernel's files on this machine.
    :ivar calls: the calls in progress.
    :ivar lost_cpus: the CPUs that control groups have lost while they were offline.
    """

    def __init__(
        self,
        uri: str,
        lend: Callable[[], AbstractContextManager[Any]],
        *,
        on_lifecycle: Callable[[str], None] = lambda _instance_uuid: None,
        on_change: Callable[[str], None] = lambda _instance_uuid: None,
        store: Callable[[], str] = lambda: "",
        files: KernelFiles | None = None,
    ) -> None:
        self._uri = uri
        self._files = files or KernelFiles()
        self._locality: Locality | None = None
        self._host_uuid: str | None = None
        self._logged: Locality | None = None
        # The incarnations of guests whose process was missed, and of those found.
        self._missed: dict[str, int] = {}
        self._found: dict[str, int] = {}
        self._lend = lend
        self._on_lifecycle = on_lifecycle
        self._on_change = on_change
        self._store = store
        self._migrated: dict[str, None] = {}
        self._own_changes = OwnChanges()
        self._processes = Processes(self._files.proc)
        self._occupancy = Occupancy()
        self.calls = Calls()
        self.lost_cpus = LostCpus()
        #: The events to receive, for a :class:`Keeper`.
        self.events: dict[int, Callable[..., None]] = {
            libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE: self._lifecycle,
            libvirt.VIR_DOMAIN_EVENT_ID_TUNABLE: self._tuned,
        }

    def invalidate(self) -> None:
        """Forget what may have changed while no events were received."""
        self._occupancy.forget()
        self._locality = None
        self._host_uuid = None

    @property
    def visibility(self) -> Visibility:
        """What of the host and its guests can't be read or observed."""
        return self._files.visibility

    def locality(self) -> Locality:
        """Return where libvirt's host is.

        :raises HypervisorUnavailable: if libvirt is unavailable.
        """
        with self._connected() as connection, self._calling(connection, "locating its host"):
            return self._locate(connection)

    def online_cpus(self) -> CpuSet | None:
        """Return the CPUs that the kernel shows as online; None if its files are not used."""
        here = self._locality is not None and self._locality.here
        return host.watched_cpus(self._files) if here else None

    @contextmanager
    def guest(self, instance_uuid: str) -> Iterator[Guest]:
        """Look up a guest, for use by this thread within the block.

        :raises GuestAbsent: if it is not running; its subclass DomainGone if there is no such
            domain.
        :raises HypervisorUnavailable: if libvirt is unavailable.
        """
        with self._connected(instance_uuid) as connection:
            with self._calling(connection, "looking the domain up", instance_uuid):
                domain = self._find(connection, instance_uuid)
                place = self._locate(connection)
                now = host.read(connection, self._files if place.here else None)
                now = replace(now, uuid=self._uuid_of_host(connection))
            observer = self._observer(instance_uuid, domain, place)
            yield Guest(
                domain,
                self._within(now, observer),
                observer,
                own_changes=self._own_changes,
                lost_cpus=self.lost_cpus,
                calls=self.calls,
                store=self._store(),
            )

    def release_saved(self, instance_uuid: str) -> bool:
        """Remove Kongming's values from the saved image of a suspended guest.

        :returns: whether there were any.
        :raises HypervisorUnavailable: if libvirt is unavailable.
        :raises Failed: if libvirt reports another error.
        """
        with (
            self._connected(instance_uuid) as connection,
            self._calling(connection, "changing the saved image", instance_uuid),
        ):
            try:
                domain = self._find(connection, instance_uuid)
            except exception.GuestAbsent:
                return False
            try:
                return saved_image.is_saved(domain) and saved_image.release(domain)
            except libvirt.libvirtError:
                # The guest may have been resumed or deleted meanwhile.
                if saved_image.is_saved(domain):
                    raise
                return False

    def forget_migrated(self, instance_uuid: str) -> None:
        """Forget that a guest was migrated away, once that was processed."""
        self._migrated.pop(instance_uuid, None)

    def occupants(self) -> list[Occupant]:
        """Return the running domains of this host, with their pins.

        :raises HypervisorUnavailable: if libvirt is unavailable.
        """
        with self._connected() as connection, self._calling(connection, "listing the domains"):
            files = self._files if self._locate(connection).here else None
            cpus = None if files is None else host.agreed_cpus(connection, files)
            return self._occupancy.read(connection, None if cpus is None else cpus[1])

    def topology(self) -> Topology:
        """Return the host's topology.

        :raises HypervisorUnavailable: if libvirt is unavailable.
        :raises Failed: if libvirt reports another error.
        """
        with self._connected() as connection, self._calling(connection, "reading the topology"):
            files = self._files if self._locate(connection).here else None
            return capabilities.read(connection, files)

    @contextmanager
    def _connected(self, instance_uuid: str = "") -> Iterator[Any]:
        """Borrow a connection for the block."""
        with ExitStack() as stack:
            with self.calls.make("connecting to libvirt", instance_uuid):
                connection = stack.enter_context(self._lend())
            yield connection

    @contextmanager
    def _calling(self, connection: Any, doing: str, instance_uuid: str = "") -> Iterator[None]:
        with self.calls.make(doing, instance_uuid):
            try:
                yield
            except libvirt.libvirtError as error:
                if not is_alive(connection):
                    raise exception.HypervisorUnavailable(
                        f"the connection to libvirt at {self._uri} was lost"
                    ) from error
                if denied := forbids(error, doing):
                    raise denied from error
                raise exception.Failed(
                    f"{doing}: libvirt error {error.get_error_code()}: {error.get_error_message()}"
                ) from error

    def _uuid_of_host(self, connection: Any) -> str:
        """Return libvirt's identifier of the host, read once per connection of the service."""
        if self._host_uuid is None:
            self._host_uuid = capabilities.host_uuid(connection)
        return self._host_uuid

    def _find(self, connection: Any, instance_uuid: str) -> Any:
        try:
            return connection.lookupByUUIDString(instance_uuid)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            raise exception.DomainGone(
                "there is no such domain on this host", migrated=instance_uuid in self._migrated
            ) from error

    def _locate(self, connection: Any) -> Locality:
        """Return where libvirt's host is, found out once per connection of the service."""
        known = self._locality
        return known or self._set_locality(locality.locate(connection, self._uri, self._files))

    def _set_locality(self, found: Locality) -> Locality:
        self._locality = found
        if found == self._logged:
            return found
        self._logged = found
        if found.here or not found.has_processes:
            LOG.info("libvirt at %s is %s", self._uri, found)
        else:
            LOG.warning(
                "libvirt at %s is %s: only what libvirt reports of that host and its guests is "
                "known; run this service on that machine",
                self._uri,
                found,
            )
        return found

    def _observer(self, instance_uuid: str, domain: Any, place: Locality) -> Observer:
        process = self._processes.find(instance_uuid) if place.has_processes else None
        if process is None:
            hidden = self._why_hidden(instance_uuid, domain, place)
            return Observer(instance_uuid, None, None, self.visibility, hidden=hidden)
        self._found[instance_uuid] = domain.ID()
        if not (place.here and place.certain):
            self._set_locality(locality.FOUND)
        groups, hidden = None, ""
        try:
            groups = cgroup.find(process.pid, proc=self._files.proc, cgroup=self._files.cgroup)
        except ProcessLookupError:
            LOG.debug("Instance %s: its process has just ended", instance_uuid)
        except OSError as error:
            hidden = reason(error)
        else:
            self.visibility.regained(GROUPS, instance_uuid)
        if hidden:
            self.visibility.lost(hidden_groups(hidden), instance_uuid)
        return Observer(instance_uuid, process, groups, self.visibility, hidden_groups=hidden)

    def _why_hidden(self, instance_uuid: str, domain: Any, place: Locality) -> str:
        """Return why the process of a guest can't be found, and register that."""
        if not place.has_processes:
            return place.why
        elsewhere = place.certain and not place.here
        why = f"libvirt is {place}" if elsewhere else self._processes.why_hidden()
        incarnation = domain.ID()
        missed_again = self._missed.get(instance_uuid) == incarnation
        if why != NOT_FOUND or (missed_again and not self._has_ended(instance_uuid, domain)):
            self.visibility.lost(hidden_threads(why), instance_uuid)
        self._missed[instance_uuid] = incarnation
        return why

    def _has_ended(self, instance_uuid: str, domain: Any) -> bool:
        """Return whether a guest whose process is missing has just ended."""
        # libvirt notices the end of a guest with a delay.
        return self._found.get(instance_uuid) == domain.ID() or has_stopped(domain)

    def _within(self, now: Host, observer: Observer) -> Host:
        """Return the host as the groups above a guest limit it."""
        groups = observer.groups
        if groups is None:
            return now
        above = observer.cpus_above()
        if groups.version == 1:
            self.lost_cpus.note(above, now.online)
            restorable = self.lost_cpus.restorable(above, now.online)
            above = {folder: CpuSet(has | restorable) for folder, has in above.items()}
        return now.of_groups(groups.version, above)

    def _lifecycle(
        self, _connection: Any, domain: Any, event: int, detail: int, _opaque: object
    ) -> None:
        instance_uuid = domain.UUIDString()
        LOG.debug("Domain %s: lifecycle event %d, detail %d", instance_uuid, event, detail)
        self._occupancy.forget(instance_uuid)
        if event in _ENDINGS:
            self._missed.pop(instance_uuid, None)
            self._found.pop(instance_uuid, None)
            self.visibility.forget(instance_uuid)
        if (event, detail) == _MIGRATED:
            self._migrated[instance_uuid] = None
            if len(self._migrated) > _MIGRATED_MAX:
                del self._migrated[next(iter(self._migrated))]
        elif event != libvirt.VIR_DOMAIN_EVENT_UNDEFINED:
            self._migrated.pop(instance_uuid, None)
        if event in _LIFECYCLE:
            self._on_lifecycle(instance_uuid)

    def _tuned(self, _connection: Any, domain: Any, changes: Any, _opaque: object) -> None:
        instance_uuid = domain.UUIDString()
        for name, value in changes.items():
            if vcpu := _VCPU_PIN.fullmatch(name):
                self._occupancy.note_pin(instance_uuid, int(vcpu[1]), CpuSet.parse(value))
        if not self._own_changes.recognise(instance_uuid, changes):
            LOG.debug("Domain %s: changed by others: %s", instance_uuid, changes)
            self._on_change(instance_uuid)
