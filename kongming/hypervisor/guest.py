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

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import libvirt

from kongming import exception
from kongming.cpuset import CpuSet
from kongming.hypervisor import definition
from kongming.hypervisor.host import HostCpus


class Guest:
    """A running domain.

    :ivar host: the host's CPUs as they were when the guest was looked up.

    Every method raises ``GuestAbsent`` if the domain is no longer running,
    ``HypervisorUnavailable`` if libvirt went away, ``PinningUnsupported`` if
    the vCPUs have no threads of their own, and ``StepFailed`` with libvirt's
    code and words for any other error.
    """

    def __init__(self, domain: Any, host: HostCpus) -> None:
        """Wrap a libvirt domain and the CPUs of its host."""
        self._domain = domain
        self.host = host

    def definition(self) -> definition.Definition:
        """Read the live definition."""
        with self._translated("reading the definition"):
            return definition.parse(self._domain.XMLDesc(0), self.host.count)

    def affinity(self) -> dict[int, CpuSet]:
        """Read where the vCPU threads really may run, by the kernel's word.

        :returns: vCPU → cpuset, for the vCPUs that are plugged in.
        """
        with self._translated("reading the threads' affinity"):
            info, maps = self._domain.vcpus()
        return {
            vcpu[0]: CpuSet.from_cpumap(cpumap) for vcpu, cpumap in zip(info, maps, strict=True)
        }

    def pin_vcpu(self, vcpu: int, cpus: CpuSet) -> None:
        """Pin a vCPU to host CPUs, all of which must be there.

        libvirt silently leaves out CPUs that the host does not have.
        """
        with self._translated(f"pinning vCPU {vcpu} to {cpus}"):
            self._domain.pinVcpu(vcpu, cpus.cpumap(self.host.count))

    def keep_baseline(self, pins: Mapping[int, CpuSet]) -> None:
        """Write the baseline into the domain's own metadata.

        There it lives exactly as long as what it describes: through
        libvirtd's restarts, live migration and managed save, and no longer.
        """
        self._set_baseline(definition.baseline_xml(pins))

    def forget_baseline(self) -> None:
        """Take the baseline out of the domain's metadata."""
        self._set_baseline(None)

    def _set_baseline(self, xml: str | None) -> None:
        with self._translated("writing the baseline"):
            self._domain.setMetadata(
                libvirt.VIR_DOMAIN_METADATA_ELEMENT,
                xml,
                definition.BASELINE_PREFIX,
                definition.BASELINE_URI,
                libvirt.VIR_DOMAIN_AFFECT_LIVE,
            )

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
