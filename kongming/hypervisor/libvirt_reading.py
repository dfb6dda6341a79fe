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

"""What libvirt tells of a running domain, for what can't be read from the kernel here."""

from __future__ import annotations

from typing import Any

import libvirt

from kongming.allocation import target
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import NO_QUOTA, Quota, Target
from kongming.hypervisor.reading import Reading

#: libvirt's driver whose guests are processes, by the name that it has for connections.
DRIVER = "QEMU"

_LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
# Any real quota is far below; libvirt's own word for none is not always the same.
_NO_REAL_QUOTA_US = 10**12


def vcpus(domain: Any) -> dict[Target, Reading]:
    """Read the affinity of the vCPUs' threads, which libvirt asks the kernel for."""
    info, maps = domain.vcpus()
    # Other drivers have no threads.
    by_kernel = domain.connect().getType() == DRIVER
    return {
        target.vcpu(vcpu[0]): Reading.of(CpuSet.from_cpumap(cpumap), by_kernel=by_kernel)
        for vcpu, cpumap in zip(info, maps, strict=True)
    }


def memory(domain: Any, nodes: CpuSet) -> dict[Target, Reading]:
    """Read which nodes the memory was bound to.

    :param nodes: the host's nodes that have memory.
    """
    nodeset = domain.numaParameters(_LIVE)["numa_nodeset"]
    bound = CpuSet.parse(nodeset) if nodeset else nodes
    return {target.MEMORY: Reading.of(CpuSet(bound & nodes), by_kernel=False)}


def cpu_time(domain: Any) -> dict[Target, Reading]:
    """Read shares and quota from the control groups; of the vCPUs libvirt looks at vCPU 0 only."""
    now = domain.schedulerParametersFlags(_LIVE)
    found: dict[Target, Reading] = {}
    if "cpu_shares" in now:
        found[target.SHARES] = Reading.of(now["cpu_shares"])
    if "vcpu_quota" in now:
        unlimited = now["vcpu_quota"] <= 0 or now["vcpu_quota"] >= _NO_REAL_QUOTA_US
        quota = NO_QUOTA if unlimited else Quota(now["vcpu_quota"], now["vcpu_period"])
        found[target.QUOTA] = Reading.of(quota, by_kernel=False)
    return found
