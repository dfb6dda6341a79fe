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

"""What may be requested for a guest with a NUMA topology: only what Nova gave it.

Nova accounts for the guest's CPUs and memory in its own database. Within them, a guest can be
placed more exactly without making Nova's accounts wrong; outside them it can't. Functions without
side effects; each raises a refusal with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from kongming import exception
from kongming.allocation import target
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import Aspect, Target, Value
from kongming.host.grant import Grant
from kongming.host.rules import Rules


def check(requested: Mapping[Target, Value], grant: Grant, rules: Rules) -> None:
    """Refuse a request outside of the grant.

    :raises NumaMemory: if memory would move.
    :raises OutsideGrant: if a thread would run where Nova did not let it.
    :raises DedicatedCpus: if dedicated CPUs are not permuted as a whole.
    :raises AcrossCells: if they are permuted across the guest's cells, and the rules forbid it.
    :raises RealtimeCpu: if other threads would run on a CPU of a real-time vCPU.
    """
    if target.MEMORY in requested:
        raise exception.NumaMemory(
            "the memory of a guest with a NUMA topology stays where Nova bound it"
            + (f": node {grant.nodes}" if grant.nodes else "")
            + "; request CPUs only, or use a flavor without NUMA topology and page size"
        )
    pins = {what: cast(CpuSet, requested[what]) for what in requested if grant.of(what)}
    dedicated = grant.dedicated(rules.dedicated_cpus)
    after = dict(dedicated)
    for what, cpus in pins.items():
        if what.aspect is Aspect.VCPU and what.number in dedicated:
            after[what.number] = _own_cpu(what, cpus, grant, dedicated)
        elif what.aspect is Aspect.VCPU:
            _within(what, cpus, grant.cpus[what], grant)
    _check_permutation(after, dedicated, grant, rules)
    allowed = CpuSet(dedicated.values()) | rules.shared_cpus
    for what, cpus in pins.items():
        if what.aspect is not Aspect.VCPU:
            _within(what, cpus, CpuSet(grant.of(what) | allowed), grant)
    _check_realtime(pins, after, grant)


def _within(what: Target, cpus: CpuSet, allowed: CpuSet, grant: Grant) -> None:
    if outside := CpuSet(cpus - allowed):
        granted = grant.of(what)
        more = f", and it may run on {allowed}" if allowed != granted else ""
        raise exception.OutsideGrant(
            f"CPU {outside} is not in the grant of {what}: Nova gave {what} the CPUs "
            f"{granted}{more}; request some of these"
        )


def _own_cpu(what: Target, cpus: CpuSet, grant: Grant, dedicated: Mapping[int, int]) -> int:
    """Return the one CPU that is requested for a vCPU with a dedicated CPU."""
    own = CpuSet(dedicated.values())
    if outside := CpuSet(cpus - own):
        raise exception.OutsideGrant(
            f"CPU {outside} is not among the guest's dedicated CPUs {own}: Nova gave {what} the "
            f"CPU {grant.cpus[what]}; request a permutation of them"
        )
    if len(cpus) != 1:
        raise exception.DedicatedCpus(
            f"{what} has a dedicated CPU and can't have {cpus}: Nova gave it the CPU "
            f"{grant.cpus[what]}; request one CPU for each vCPU, a permutation of {own}"
        )
    return next(iter(cpus))


def _check_permutation(
    after: Mapping[int, int], dedicated: Mapping[int, int], grant: Grant, rules: Rules
) -> None:
    owners = {cpu: vcpu for vcpu, cpu in dedicated.items()}
    taken: dict[int, int] = {}
    for vcpu, cpu in sorted(after.items()):
        if cpu in taken:
            raise exception.DedicatedCpus(
                f"vCPUs {taken[cpu]} and {vcpu} would share the dedicated CPU {cpu}: Nova gave "
                f"vCPU {taken[cpu]} the CPU {dedicated[taken[cpu]]} and vCPU {vcpu} the CPU "
                f"{dedicated[vcpu]}; request the whole permutation"
            )
        taken[cpu] = vcpu
        there = grant.cells.get(owners[cpu])
        if grant.cells.get(vcpu) != there and not rules.numa_across_cells:
            raise exception.AcrossCells(
                f"CPU {cpu} belongs to the guest's NUMA cell {there}, and vCPU {vcpu} to its cell "
                f"{grant.cells.get(vcpu)}: its memory would be remote; Nova gave vCPU {vcpu} the "
                f"CPU {dedicated[vcpu]}. Request a permutation within the cell, or set [guard] "
                "numa_across_cells"
            )


def _check_realtime(pins: Mapping[Target, CpuSet], after: Mapping[int, int], grant: Grant) -> None:
    """Refuse emulator and iothreads beside a real-time vCPU, also if they stay where they are."""
    moved = {vcpu: CpuSet([cpu]) for vcpu, cpu in after.items()}
    former, taken = (
        CpuSet.union(cpus for vcpu, cpus in vcpus.items() if vcpu in grant.realtime)
        for vcpus in (grant.vcpus, grant.vcpus | moved)
    )
    for what in sorted({*grant.cpus, *pins}):
        if what.aspect is Aspect.VCPU:
            continue
        stays = what not in pins
        if there := CpuSet(grant.cpus[what] & taken - former if stays else pins[what] & taken):
            does, has = ("stay", "would get") if stays else ("run", "has")
            raise exception.RealtimeCpu(
                f"{what} can't {does} on CPU {there}: a real-time vCPU of the guest {has} it and "
                f"lets no other thread run; Nova gave {what} the CPUs {grant.of(what)}"
                + ("; request other CPUs for it in the same request" if stays else "")
            )
