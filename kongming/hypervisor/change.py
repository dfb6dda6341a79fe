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

"""How libvirt is told each target's value, and how it reports such a change to all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import libvirt

from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import CPU_ASPECTS, Aspect, Quota, Target, Value
from kongming.hypervisor.host import Host

LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
DEFINED = libvirt.VIR_DOMAIN_AFFECT_CONFIG
_UNLIMITED = -1


def make(
    domain: Any, host: Host, what: Target, value: Value, flags: int = LIVE
) -> tuple[Mapping[str, object], Callable[[], object]]:
    """Return the report of a change, as libvirt will make it, and the call that makes it.

    :param flags: ``LIVE`` or ``DEFINED``: what of the domain is changed. Of its definition
        libvirt reports no change.
    """
    number = what.number
    if what.aspect in CPU_ASPECTS:
        cpumap = cast(CpuSet, value).cpumap(host.map_length)
        name, call = {
            Aspect.VCPU: (
                f"vcpupin{number}",
                # Not every driver of libvirt's takes flags here.
                (lambda: domain.pinVcpu(number, cpumap))
                if flags == LIVE
                else (lambda: domain.pinVcpuFlags(number, cpumap, flags)),
            ),
            Aspect.EMULATOR: ("emulatorpin", lambda: domain.pinEmulator(cpumap, flags)),
            Aspect.IOTHREAD: (
                f"iothreadpin{number}",
                lambda: domain.pinIOThread(number, cpumap, flags),
            ),
        }[what.aspect]
        return {f"cputune.{name}": str(value)}, call
    if what.aspect is Aspect.MEMORY:
        # Any other mode would be for good. libvirt reports no change of it.
        parameters: dict[str, Any] = {
            "numa_mode": libvirt.VIR_DOMAIN_NUMATUNE_MEM_RESTRICTIVE,
            "numa_nodeset": str(value),
        }
        return {}, lambda: domain.setNumaParameters(parameters, flags)
    if what.aspect is Aspect.QUOTA:
        quota = cast(Quota, value)
        limit = _UNLIMITED if quota.quota_us is None else quota.quota_us
        parameters = {"vcpu_quota": limit, "vcpu_period": quota.period_us}
    else:
        parameters = {{Aspect.SHARES: "cpu_shares"}[what.aspect]: value}
    reported = {f"cputune.{name}": each for name, each in parameters.items()}
    return reported, lambda: domain.setSchedulerParametersFlags(parameters, flags)
