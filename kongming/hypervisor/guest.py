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

"""One guest: a libvirt domain, its current state and the few ways to change it.

Only the live domain is changed: its definition stays Nova's. No call enters QEMU's monitor, where
it would be stuck if QEMU hangs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
import time
from typing import Any, cast

import libvirt

from kongming import exception
from kongming.allocation import target
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import CPU_ASPECTS, Aspect, Quota, Target, Value
from kongming.hypervisor import baseline_element, definition, monitor
from kongming.hypervisor.aspects import table
from kongming.hypervisor.aspects.table import ROWS
from kongming.hypervisor.calls import PATIENCE_S, Calls
from kongming.hypervisor.definition import Definition
from kongming.hypervisor.errors import if_supported, is_paused, translated
from kongming.hypervisor.host import Host
from kongming.hypervisor.libvirt_reading import LibvirtReader
from kongming.hypervisor.lost_cpus import LostCpus
from kongming.hypervisor.observer import Observer
from kongming.hypervisor.own_changes import OwnChanges
from kongming.hypervisor.reading import Reading

_NOT_RUNNING = -1
_POLL_S = 0.02
# The least speed at which the kernel moves a guest's memory, in KiB a second.
_MOVED_KIB_S = 16 * 1024
_IN_USE = (libvirt.VIR_DOMAIN_CONTROL_OCCUPIED, libvirt.VIR_DOMAIN_CONTROL_JOB)


class Guest:
    """A running domain.

    :ivar host: the host as this guest can use it: the groups above it may have fewer CPUs.
    :ivar domain_id: libvirt's id of the incarnation: another one after each start.

    Every method raises ``GuestAbsent`` if the domain is no longer running,
    ``HypervisorUnavailable`` if the connection to libvirt was lost, ``GuestBusy`` during a job of
    libvirt, ``PinningUnsupported`` if the vCPUs have no threads of their own, and ``StepFailed``
    with libvirt's code and message for any other error.
    """

    def __init__(
        self,
        domain: Any,
        host: Host,
        observer: Observer,
        *,
        own_changes: OwnChanges,
        lost_cpus: LostCpus,
        calls: Calls,
        store: str = "",
    ) -> None:
        """Wrap a libvirt domain.

        :param observer: observes its QEMU process.
        :param own_changes: registers each change, to recognise its event.
        :param lost_cpus: knows the CPUs that may be restored to groups.
        :param store: the store that has the guest's request, for its baseline.
        """
        self._domain = domain
        self._store = store
        self._uuid: str = domain.UUIDString()
        self._observer = observer
        self._own_changes = own_changes
        self._lost_cpus = lost_cpus
        self._calls = calls
        self._memory_kib = 0
        # The values that libvirt keeps in the domain's XML, released or not.
        self._outlasting: dict[Target, Value] = {}
        self.host = host
        with self._calling("reading the domain's id"):
            self.domain_id: int = domain.ID()
        if self.domain_id == _NOT_RUNNING:
            raise exception.DomainOff("the domain is not running")

    def definition(self) -> Definition:
        """Read the live definition.

        :raises GuestHung: if QEMU has not responded to another client.
        """
        monitor.wait(self._control)
        with self._calling("reading the definition"):
            xml = self._domain.XMLDesc(0)
            found = definition.parse(
                xml,
                self.host,
                lambda: self._domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE),
            )
        self._memory_kib = found.memory_kib
        if found.grant is None:
            self._outlasting = definition.outlasting({**found.released, **found.baseline})
        return found

    def observe(
        self, targets: Iterable[Target], now: Definition | None = None
    ) -> dict[Target, Reading]:
        """Read the current values: from the kernel, or else from libvirt.

        :param now: its live definition, if that was just read.
        :returns: the targets that exist; each reading says where it is from. A vCPU that is not
            plugged in does not exist, nor does the CPU time if libvirt does not control it.
        """
        requested = set(targets)
        found = self._observer.read(requested, self.host.nodes)
        shown = {what.aspect for what in found}
        missing = {what.aspect for what in requested - found.keys()}
        reader = self._reader(now)
        for aspect in sorted(missing):
            if not (ROWS[aspect].is_complete and aspect in shown):
                found = self._read_libvirt(aspect, reader) | found
        return {what: reading for what, reading in found.items() if what in requested}

    @property
    def is_found(self) -> bool:
        """Whether its QEMU process was found, and its threads are visible."""
        return self._observer.is_found

    @property
    def hidden(self) -> str:
        """Why the kernel does not show all of it here; empty if it does."""
        return self._observer.hidden

    def set(self, what: Target, value: Value) -> None:
        """Set a target to a value.

        All CPUs and nodes must exist: libvirt silently omits CPUs that the host does not have.

        :raises QuotaUnsupported: if libvirt accepted the quota without effect.
        """
        reported, call = table.change(self._domain, self.host, what, value)
        self._own_changes.expect(self._uuid, reported)
        try:
            self._call(call, what, value)
        except exception.KongmingError:
            self._own_changes.withdraw(self._uuid, reported)
            raise
        if what == target.EMULATOR:
            self._move_stragglers(cast(CpuSet, value))
        if what == target.QUOTA:
            self._check_quota(cast(Quota, value))

    def check_free(self) -> None:
        """Check that libvirt would change the guest now.

        It would wait for half a minute if another client's call, or a job such as a migration,
        uses the guest.

        :raises GuestBusy: if a job uses it.
        :raises GuestHung: if QEMU has not responded to another client.
        """
        if self._control() in _IN_USE:
            raise exception.GuestBusy("libvirt is busy with the guest")
        try:
            with self._calling("reading its job"):
                job = if_supported(self._domain.jobInfo)
        except exception.Unsupported:
            # libvirt has the job of an incoming migration on the source host only.
            raise exception.GuestBusy("the guest's live migration to this host goes on") from None
        if job is not None and job[0] != libvirt.VIR_DOMAIN_JOB_NONE:
            raise exception.GuestBusy(
                "a libvirt job, such as a migration or a save, is running on the guest"
            )
        if self._is_paused(libvirt.VIR_DOMAIN_PAUSED_MIGRATION):
            raise exception.GuestBusy("the guest waits for the end of its live migration")

    def _control(self) -> int | None:
        with self._calling("reading its control interface"):
            return monitor.state(self._domain)

    def memory_kib(self) -> dict[int, int] | None:
        """Return the guest's memory on each NUMA node, in KiB; see QemuProcess.

        :returns: None if it can't be read.
        """
        return self._observer.memory_kib()

    def is_starting(self) -> bool:
        """Return whether libvirt is about to start it.

        It counts as running from the beginning, before it has control groups.
        """
        return self._is_paused(libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)

    def ends_within(self, seconds: float) -> bool:
        """Wait for this incarnation to end; return whether it did.

        A domain that is being stopped still counts as running, but can't be changed any more.
        """
        deadline = time.monotonic() + seconds
        while not (ended := self._id_now() != self.domain_id) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return ended

    def has_restarted(self) -> bool:
        """Return whether the domain has ended and runs again.

        libvirt identifies a domain by its UUID: further changes would affect the new incarnation.
        """
        return self._id_now() not in (self.domain_id, _NOT_RUNNING)

    def write_baseline(self, baseline: Mapping[Target, Value]) -> None:
        """Write the baseline into the domain's metadata; remove it if it is empty."""
        released = {
            what: value for what, value in self._outlasting.items() if what not in baseline
        }
        with self._calling("writing the baseline"):
            if self._outlasting:
                baseline_element.write_released(self._domain, released, self.host)
            baseline_element.write(self._domain, baseline, self._store, self.host)
        self._outlasting |= definition.outlasting(baseline)

    def clean_definition(self) -> bool:
        """Remove Kongming's values from the persistent definition; return whether it had any."""
        doing = "cleaning the definition"
        with self._calling(doing):
            found = baseline_element.in_definition(self._domain, self.host)
        if found is None:
            return False
        self.check_free()
        with self._calling(doing):
            baseline_element.clean(self._domain, self.host, found)
        return True

    @property
    def group_folder(self) -> Path | None:
        """The folder of its control groups; None if it has none, or none is visible."""
        groups = self._observer.groups
        return None if groups is None else groups.folder

    @property
    def has_cpu_controller(self) -> bool:
        """Whether libvirt can control the guest's CPU time, as far as is known."""
        return self._observer.controls(lambda groups: groups.has_cpu)

    @property
    def has_cpuset_controller(self) -> bool:
        """Whether libvirt can control the guest's memory nodes, as far as is known."""
        return self._observer.controls(lambda groups: groups.has_cpuset)

    def _is_paused(self, reason: int) -> bool:
        with self._calling("reading the state"):
            return is_paused(self._domain, reason)

    def _id_now(self) -> int:
        try:
            return int(self._domain.connect().lookupByUUIDString(self._uuid).ID())
        except libvirt.libvirtError:
            return _NOT_RUNNING

    def _call(self, call: Callable[[], object], what: Target, value: Value) -> None:
        doing = f"setting {what} to {value}"
        patience = PATIENCE_S
        if what.aspect is Aspect.MEMORY:
            patience += self._memory_kib / _MOVED_KIB_S
        try:
            with self._calling(doing, patience):
                call()
        except exception.StepFailed:
            if not self._widen(what, value):
                raise
            with self._calling(doing, patience):
                call()

    def _widen(self, what: Target, value: Value) -> bool:
        """Restore the CPUs that the groups above have lost while CPUs were offline."""
        groups = self._observer.groups
        if groups is None or groups.version != 1 or what.aspect not in CPU_ASPECTS:
            return False
        cpus = CpuSet(cast(CpuSet, value) & self.host.online)
        return self._lost_cpus.restore(self._observer.cpus_above(), cpus)

    def _move_stragglers(self, cpus: CpuSet) -> None:
        """Move the threads that libvirt's pin of the emulator does not reach.

        libvirt pins the main thread and confines the others by their group. A thread that was
        created while the main thread was pinned keeps those CPUs when the group gets wider.
        """
        usable = CpuSet(cpus & self.host.usable)
        for thread in self._observer.threads_of(target.EMULATOR):
            if CpuSet(thread.cpus & self.host.usable) != usable:
                self._observer.move(thread, usable)

    def _check_quota(self, value: Quota) -> None:
        found = self._observer.read([target.QUOTA], self.host.nodes)
        found = found or self._read_libvirt(Aspect.QUOTA, self._reader())
        if target.QUOTA not in found or found[target.QUOTA].common != value:
            raise exception.QuotaUnsupported(
                "libvirt has no control group for each vCPU of this guest, so that a quota has "
                "no effect: QEMU emulates them all in a single thread; run the guest with KVM, "
                "or with multi-threaded emulation"
            )

    def _reader(self, now: Definition | None = None) -> LibvirtReader:
        return LibvirtReader(
            self._domain,
            self.host.nodes,
            has_cpu=self.has_cpu_controller,
            configured=lambda: (now or self.definition()).configured,
        )

    def _read_libvirt(self, aspect: Aspect, reader: LibvirtReader) -> dict[Target, Reading]:
        row = ROWS[aspect]
        with self._calling(f"reading {row.reading}"):
            return row.read_libvirt(reader)

    @contextmanager
    def _calling(self, doing: str, patience_s: float = PATIENCE_S) -> Iterator[None]:
        with self._calls.make(doing, self._uuid, patience_s):
            try:
                yield
            except libvirt.libvirtError as error:
                raise translated(error, doing, self._domain) from error
