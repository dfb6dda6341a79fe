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

"""Sets of isolated CPUs: the kernel does not spread a guest's threads over them.

Functions without side effects; :mod:`kongming.hypervisor.isolation` reads which CPUs these are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import cast

from kongming.allocation.cpuset import CpuSet, listed
from kongming.allocation.target import CPU_ASPECTS, Aspect, Target, Value

# How many pins are proposed at most; of more the first ones show the form.
_PROPOSED_MAX = 16


def of_request(desired: Mapping[Target, Value]) -> dict[Target, CpuSet]:
    """Return the threads' CPUs if any set has several; single CPUs need no check."""
    pins = {
        what: cast(CpuSet, value)
        for what, value in sorted(desired.items())
        if what.aspect in CPU_ASPECTS
    }
    return pins if any(len(cpus) > 1 for cpus in pins.values()) else {}


def warnings(pins: Mapping[Target, CpuSet], isolated: CpuSet) -> list[str]:
    """Return a warning for each set that contains isolated CPUs."""
    vcpus = {what.number: cpus for what, cpus in pins.items() if what.aspect is Aspect.VCPU}
    others: dict[CpuSet, list[str]] = {}
    for what, cpus in pins.items():
        if what.aspect is not Aspect.VCPU and len(cpus) > 1 and isolated & cpus:
            others.setdefault(cpus, []).append(str(what))
    return [
        *(message for _within, message in of_vcpus(vcpus, isolated)),
        *(
            f"{_describe(' and '.join(names), cpus, isolated & cpus)}; request one CPU, or others"
            for cpus, names in others.items()
        ),
    ]


def of_vcpus(pins: Mapping[int, CpuSet], isolated: CpuSet) -> Iterator[tuple[CpuSet, str]]:
    """Yield the isolated CPUs of each set that vCPUs are pinned to, with a warning."""
    sets: dict[CpuSet, list[int]] = {}
    # A CPU is proposed once, and none that another vCPU has already.
    taken = {next(iter(cpus)) for cpus in pins.values() if len(cpus) == 1}
    for vcpu, cpus in sorted(pins.items()):
        if len(cpus) > 1:
            sets.setdefault(cpus, []).append(vcpu)
    for cpus, vcpus in sets.items():
        if within := isolated & cpus:
            left = list(islice((cpu for cpu in cpus if cpu not in taken), len(vcpus)))
            taken.update(left)
            message = _describe(f"vCPU {listed(CpuSet(vcpus))}", cpus, within)
            yield within, f"{message}; {_advice(vcpus, left)}"


def _advice(vcpus: Sequence[int], left: Sequence[int]) -> str:
    """:param left: CPUs to propose; perhaps fewer than vCPUs."""
    if len(left) < len(vcpus):
        return "request as many CPUs as vCPUs, or others"
    pins = [f"{vcpu}:{cpu}" for vcpu, cpu in zip(vcpus, left, strict=True)]
    proposed = pins if len(pins) <= _PROPOSED_MAX else [*pins[:2], "..."]
    return f"pin each to one CPU: {';'.join(proposed)}"


def _describe(who: str, cpus: CpuSet, within: CpuSet) -> str:
    those = "isolated CPUs" if within == cpus else f"CPUs of which {listed(within)} are isolated"
    return (
        f"{who} on {those} ({listed(cpus)}): the kernel does not spread threads over isolated "
        "CPUs, several may share one"
    )
