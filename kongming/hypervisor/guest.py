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

"""One guest: a libvirt domain, what it has now and the few ways to change it.

Everything is done to the live domain only: its definition stays Nova's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
import time
from typing import Any, TypeVar, cast

import libvirt

from kongming import exception, target
from kongming.cpuset import CpuSet
from kongming.hypervisor import cpuset_v1, definition
from kongming.hypervisor.host import Host
from kongming.hypervisor.own_changes import OwnChanges
from kongming.hypervisor.process import QemuProcess
from kongming.target import NO_QUOTA, Aspect, Quota, Target, Value

T = TypeVar("T")

_LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
# How libvirt writes and reads that there is no limit.
_UNLIMITED = -1
# Any real quota is far below; libvirt's own word for none is not always the same.
_NO_REAL_QUOTA_US = 10**12
_NOT_RUNNING = -1
_POLL_S = 0.02


class Guest:
    """A running domain.

    :ivar host: the host as it was when the guest was looked up.
    :ivar domain_id: libvirt's id of it: another one after each start.

    Every method raises ``GuestAbsent`` if the domain is no longer running,
    ``HypervisorUnavailable`` if libvirt went away, ``PinningUnsupported`` if
    the vCPUs have no threads of their own, and ``StepFailed`` with libvirt's
    code and words for any other error.
    """

    def __init__(
        self,
        domain: Any,
        host: Host,
        find_process: Callable[[str], QemuProcess | None],
        own_changes: OwnChanges,
    ) -> None:
        """Wrap a libvirt domain.

        :param find_process: finds its QEMU process by its UUID, if it is on
            this machine; called if need be.
        :param own_changes: is told of each change that is made here.
        """
        self._domain = domain
        self._uuid: str = domain.UUIDString()
        self._find_process = find_process
        self._own_changes = own_changes
        self.host = host
        with self._translated("looking at the domain"):
            self.domain_id: int = domain.ID()
        if self.domain_id == _NOT_RUNNING:
            raise exception.GuestAbsent("the domain is not running")

    def definition(self) -> definition.Definition:
        """Read the live definition."""
        with self._translated("reading the definition"):
            return definition.parse(self._domain.XMLDesc(0), self.host)

    def seen(self, targets: Iterable[Target]) -> dict[Target, Value]:
        """Read what the guest really has, by the kernel's word.

        :returns: the targets that are there and can be seen: a vCPU that is
            not plugged in can't be.
        """
        wanted = set(targets)
        found: dict[Target, Value] = {}
        for aspects, look in self._looks().items():
            if not aspects.isdisjoint({aspect for aspect, _ in wanted}):
                found |= look()
        return {what: value for what, value in found.items() if what in wanted}

    def set(self, what: Target, value: Value) -> None:
        """Give a target its value.

        CPUs and nodes must all be there: libvirt silently leaves out CPUs
        that the host does not have.

        :raises QuotaUnsupported: if libvirt took the quota without effect.
        """
        reported, call = self._change(what, value)
        self._own_changes.expect(self._uuid, reported)
        try:
            self._call(call, what, value)
        except exception.KongmingError:
            self._own_changes.withdraw(self._uuid, reported)
            raise
        if what == target.QUOTA and self.seen([what])[what] != value:
            raise exception.QuotaUnsupported(
                "libvirt has no control group for each vCPU of this guest, so that a quota has "
                "no effect: QEMU emulates them all in a single thread; run the guest with KVM, "
                "or with multi-threaded emulation"
            )

    def _call(self, call: Callable[[], object], what: Target, value: Value) -> None:
        try:
            with self._translated(f"setting {what} to {value}"):
                call()
        except exception.StepFailed:
            if not self._is_too_narrow(what, value):
                raise
            with self._translated(f"setting {what} to {value}"):
                call()

    def _is_too_narrow(self, what: Target, value: Value) -> bool:
        """Tell whether CPUs were missing above the guest, as after being offline."""
        if self.host.cgroup != 1 or what.aspect not in target.CPU_ASPECTS:
            return False
        cpus = CpuSet(cast(CpuSet, value) & self.host.online)
        return bool(self._read(lambda process: cpuset_v1.widen(process.pid, cpus)))

    def memory_kib(self) -> dict[int, int] | None:
        """Count the guest's memory on each NUMA node, in KiB; see QemuProcess.

        :returns: None if it can't be counted.
        """
        return self._read(QemuProcess.memory_kib)

    def is_starting(self) -> bool:
        """Tell whether libvirt is about to start it.

        It counts as running from the beginning, before it has control groups.
        """
        with self._translated("reading the state"):
            state = self._domain.state()
        return bool(state == [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP])

    def ends_within(self, seconds: float) -> bool:
        """Wait whether this incarnation ends soon.

        While a domain is being ended it still counts as running, but nothing
        can be done to it any more.
        """
        deadline = time.monotonic() + seconds
        while not (ended := self._has_ended()) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return ended

    def _has_ended(self) -> bool:
        try:
            domain_id = self._domain.connect().lookupByUUIDString(self._uuid).ID()
        except libvirt.libvirtError:
            return True
        return bool(domain_id != self.domain_id)

    def keep_baseline(self, baseline: Mapping[Target, Value]) -> None:
        """Write the baseline into the domain's own metadata; none takes it out.

        There it lives exactly as long as what it describes: through
        libvirtd's restarts, live migration and managed save, and no longer.
        """
        with self._translated("writing the baseline"):
            self._domain.setMetadata(
                libvirt.VIR_DOMAIN_METADATA_ELEMENT,
                definition.baseline_xml(baseline) if baseline else None,
                definition.BASELINE_PREFIX,
                definition.BASELINE_URI,
                _LIVE,
            )

    def _read(self, what: Callable[[QemuProcess], T]) -> T | None:
        """Read of its process; None if there is none, or none that we may look at."""
        process = self._find_process(self._uuid)
        if process is None:
            return None
        try:
            return what(process)
        except OSError:
            return None

    def _looks(self) -> dict[frozenset[Aspect], Callable[[], dict[Target, Value]]]:
        return {
            frozenset({Aspect.VCPU}): self._vcpus,
            frozenset({Aspect.IOTHREAD}): self._iothreads,
            frozenset({Aspect.EMULATOR}): self._emulator,
            frozenset({Aspect.SHARES, Aspect.QUOTA}): self._cpu_time,
            frozenset({Aspect.MEMORY}): self._memory,
        }

    def _vcpus(self) -> dict[Target, Value]:
        with self._translated("reading the vCPU threads' affinity"):
            info, maps = self._domain.vcpus()
        return {
            target.vcpu(vcpu[0]): CpuSet.from_cpumap(cpumap)
            for vcpu, cpumap in zip(info, maps, strict=True)
        }

    def _iothreads(self) -> dict[Target, Value]:
        with self._translated("reading the iothreads' affinity"):
            threads = self._domain.ioThreadInfo(_LIVE)
        return {target.iothread(number): CpuSet.from_cpumap(cpus) for number, cpus in threads}

    def _emulator(self) -> dict[Target, Value]:
        affinity = self._read(QemuProcess.main_affinity)
        if affinity is None:
            with self._translated("reading the emulator's pin"):
                affinity = CpuSet.from_cpumap(self._domain.emulatorPinInfo(_LIVE))
        return {target.EMULATOR: affinity}

    def _memory(self) -> dict[Target, Value]:
        nodes = self._read(QemuProcess.memory_nodes)
        if nodes is None:
            with self._translated("reading the memory's nodes"):
                nodeset = self._domain.numaParameters(_LIVE)["numa_nodeset"]
            nodes = CpuSet.parse(nodeset) if nodeset else self.host.nodes
        return {target.MEMORY: CpuSet(nodes & self.host.nodes)}

    def _cpu_time(self) -> dict[Target, Value]:
        with self._translated("reading the CPU time"):
            now = self._domain.schedulerParametersFlags(_LIVE)
        found: dict[Target, Value] = {}
        if "cpu_shares" in now:
            found[target.SHARES] = now["cpu_shares"]
        if "vcpu_quota" in now:
            unlimited = now["vcpu_quota"] <= 0 or now["vcpu_quota"] >= _NO_REAL_QUOTA_US
            quota = Quota(now["vcpu_quota"], now["vcpu_period"])
            found[target.QUOTA] = NO_QUOTA if unlimited else quota
        return found

    def _change(
        self, what: Target, value: Value
    ) -> tuple[Mapping[str, object], Callable[[], object]]:
        """Give the report of a change, as libvirt will make it, and the call."""
        domain, number = self._domain, what.number
        if what.aspect in target.CPU_ASPECTS:
            cpumap = cast(CpuSet, value).cpumap(self.host.count)
            name, call = {
                Aspect.VCPU: (f"vcpupin{number}", lambda: domain.pinVcpu(number, cpumap)),
                Aspect.EMULATOR: ("emulatorpin", lambda: domain.pinEmulator(cpumap, _LIVE)),
                Aspect.IOTHREAD: (
                    f"iothreadpin{number}",
                    lambda: domain.pinIOThread(number, cpumap, _LIVE),
                ),
            }[what.aspect]
            return {f"cputune.{name}": str(value)}, call
        if what.aspect is Aspect.MEMORY:
            # Any other mode would be for good. libvirt reports no change of it.
            parameters: dict[str, Any] = {
                "numa_mode": libvirt.VIR_DOMAIN_NUMATUNE_MEM_RESTRICTIVE,
                "numa_nodeset": str(value),
            }
            return {}, lambda: domain.setNumaParameters(parameters, _LIVE)
        parameters = {"cpu_shares": value}
        if isinstance(value, Quota):
            limit = _UNLIMITED if value.quota_us is None else value.quota_us
            parameters = {"vcpu_quota": limit, "vcpu_period": value.period_us}
        reported = {f"cputune.{name}": number for name, number in parameters.items()}
        return reported, lambda: domain.setSchedulerParametersFlags(parameters, _LIVE)

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except libvirt.libvirtError as error:
            raise_translated(error, doing, self._domain)


def raise_translated(error: libvirt.libvirtError, doing: str, domain: Any) -> None:
    """Raise the error of ours that says what libvirt's ``error`` means."""
    code, message = error.get_error_code(), error.get_error_message()
    if code == libvirt.VIR_ERR_NO_DOMAIN or _stopped(domain):
        raise exception.GuestAbsent("the domain is not running") from error
    if not is_alive(domain.connect()):
        raise exception.HypervisorUnavailable(f"libvirt went away while {doing}") from error
    if code == libvirt.VIR_ERR_OPERATION_INVALID and "affinity" in message:
        raise exception.PinningUnsupported(
            f"libvirt can't pin this guest's vCPUs ({message}): QEMU emulates them all in a "
            "single thread; run the guest with KVM, or with multi-threaded emulation"
        ) from error
    raise exception.StepFailed(f"{doing}: libvirt error {code}: {message}") from error


def is_alive(connection: Any) -> bool:
    """Tell whether a libvirt connection still serves."""
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


def _stopped(domain: Any) -> bool:
    try:
        return not domain.isActive()
    except libvirt.libvirtError as error:
        return bool(error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN)
