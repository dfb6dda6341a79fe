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

"""Values that libvirt reports of a running domain, where the kernel does not show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import functools
from typing import Any

import libvirt

from kongming.allocation import target
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import Target
from kongming.hypervisor.reading import Reading

#: The name of libvirt's driver whose guests are processes.
DRIVER = "QEMU"

_LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE


class LibvirtReader:
    """Reads a running domain. Methods raise libvirt's errors.

    :param nodes: the host's NUMA nodes that have memory.
    :param has_cpu: whether libvirt controls the guest's CPU time.
    :param configured: returns the CPUs and nodes in the live definition.
    """

    def __init__(
        self,
        domain: Any,
        nodes: CpuSet,
        *,
        has_cpu: bool,
        configured: Callable[[], Mapping[Target, CpuSet]],
    ) -> None:
        self._domain = domain
        self._nodes = nodes
        self._has_cpu = has_cpu
        self._read_configured = configured

    def vcpus(self) -> dict[Target, Reading]:
        """Read the affinity of the vCPUs' threads, which libvirt gets from the kernel."""
        info, maps = self._domain.vcpus()
        # Other drivers have no threads.
        by_kernel = self._domain.connect().getType() == DRIVER
        return {
            target.vcpu(vcpu[0]): Reading.of(CpuSet.from_cpumap(cpumap), by_kernel=by_kernel)
            for vcpu, cpumap in zip(info, maps, strict=True)
        }

    def memory(self) -> dict[Target, Reading]:
        """Read the nodes that the memory was bound to."""
        nodeset = self._domain.numaParameters(_LIVE)["numa_nodeset"]
        bound = CpuSet.parse(nodeset) if nodeset else self._nodes
        return {target.MEMORY: Reading.of(CpuSet(bound & self._nodes), by_kernel=False)}

    @functools.cached_property
    def configured(self) -> Mapping[Target, CpuSet]:
        """The CPUs and nodes in the live definition."""
        return self._read_configured()

    @functools.cached_property
    def scheduler(self) -> Mapping[str, int]:
        """The scheduler parameters; empty if libvirt has no control group for the CPU time."""
        if not self._has_cpu:
            return {}
        found: Mapping[str, int] = self._domain.schedulerParametersFlags(_LIVE)
        return found
