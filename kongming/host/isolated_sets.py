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

Functions without side effects; :mod:`kongming.hypervisor.isolation` says which CPUs these are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import cast

from kongming.allocation.cpuset import CpuSet, listed
from kongming.allocation.target import CPU_ASPECTS, Aspect, Target, Value

# Pins are proposed for so many vCPUs at most: for more the beginning says how it is meant.
_PROPOSED_MAX = 16


def of_request(wanted: Mapping[Target, Value]) -> dict[Target, CpuSet]:
    """Return the threads' CPUs, if a set of several is among them; one for each needs no look."""
    pins = {
        what: cast(CpuSet, value)
        for what, value in sorted(wanted.items())
        if what.aspect in CPU_ASPECTS
    }
    return pins if any(len(cpus) > 1 for cpus in pins.values()) else {}


def warnings(pins: Mapping[Target, CpuSet], isolated: CpuSet) -> list[str]:
    """Return what is to be said of those sets that hold isolated CPUs."""
    vcpus = {what.number: cpus for what, cpus in pins.items() if what.aspect is Aspect.VCPU}
    others: dict[CpuSet, list[str]] = {}
    for what, cpus in pins.items():
        if what.aspect is not Aspect.VCPU and len(cpus) > 1 and isolated & cpus:
            others.setdefault(cpus, []).append(str(what))
    return [
        *(told for _within, told in of_vcpus(vcpus, isolated)),
        *(
            f"{_told(' and '.join(names), cpus, isolated & cpus)}; request one CPU, or others"
            for cpus, names in others.items()
        ),
    ]


def of_vcpus(pins: Mapping[int, CpuSet], isolated: CpuSet) -> Iterator[tuple[CpuSet, str]]:
    """Yield the isolated CPUs of each set that vCPUs are pinned to, and what to say of it."""
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
            told = _told(f"vCPU {listed(CpuSet(vcpus))}", cpus, within)
            yield within, f"{told}; {_advice(vcpus, left)}"


def _advice(vcpus: Sequence[int], left: Sequence[int]) -> str:
    """:param left: CPUs for them, as many as there are."""
    if len(left) < len(vcpus):
        return "request as many CPUs as vCPUs, or others"
    pins = [f"{vcpu}:{cpu}" for vcpu, cpu in zip(vcpus, left, strict=True)]
    proposed = pins if len(pins) <= _PROPOSED_MAX else [*pins[:2], "..."]
    return f"pin each to one CPU: {';'.join(proposed)}"


def _told(who: str, cpus: CpuSet, within: CpuSet) -> str:
    those = "isolated CPUs" if within == cpus else f"CPUs of which {listed(within)} are isolated"
    return (
        f"{who} on {those} ({listed(cpus)}): the kernel does not spread threads over isolated "
        "CPUs, several may share one"
    )
