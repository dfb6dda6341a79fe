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

"""The grant: what Nova gave a guest that has a NUMA topology.

Nova itself chooses the host CPUs and the memory of such a guest, and accounts for them. It writes
them into the domain's persistent definition, again after each move. Kongming changes the running
domain only, so the persistent definition always shows the grant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kongming.allocation import target
from kongming.allocation.cpuset import CpuSet, parse_ids
from kongming.allocation.target import EMULATOR, Aspect, Target, Value, iothread, vcpu

_NONE = CpuSet()


@dataclass(frozen=True, slots=True)
class Grant:
    """What Nova gave one guest.

    :ivar cpus: the host CPUs of each vCPU, iothread and of the emulator, if Nova chose them.
    :ivar cells: the guest's own NUMA cell of each vCPU, where it has any.
    :ivar realtime: the vCPUs with a real-time scheduler.
    :ivar nodes: the host's NUMA nodes that its memory is bound to; empty if to none.
    """

    cpus: Mapping[Target, CpuSet]
    cells: Mapping[int, int] = field(default_factory=dict)
    realtime: CpuSet = _NONE
    nodes: CpuSet = _NONE

    @property
    def everything(self) -> CpuSet:
        """All host CPUs that Nova gave any part of the guest."""
        return CpuSet.union(self.cpus.values())

    @property
    def vcpus(self) -> dict[int, CpuSet]:
        """The host CPUs of each vCPU."""
        return {
            what.number: cpus for what, cpus in self.cpus.items() if what.aspect is Aspect.VCPU
        }

    def of(self, what: Target) -> CpuSet:
        """Return the host CPUs of a part; empty if Nova chose none, so that it runs anywhere.

        An iothread without its own, as older Novas leave it, belongs where the emulator is.
        """
        cpus = self.cpus.get(what, _NONE)
        return (
            self.cpus.get(EMULATOR, _NONE) if what.aspect is Aspect.IOTHREAD and not cpus else cpus
        )

    def values(self) -> dict[Target, Value]:
        """Return what Nova gave each part of the guest, memory included."""
        nodes: dict[Target, Value] = {target.MEMORY: self.nodes} if self.nodes else {}
        return {**self.cpus, **nodes}

    def dedicated(self, pool: CpuSet) -> dict[int, int]:
        """Return the host CPU of each vCPU that has one to itself.

        :param pool: the CPUs that Nova dedicates on this host; empty if unknown.
        """
        vcpus = self.vcpus
        users = Counter(cpu for cpus in vcpus.values() for cpu in cpus)
        found = {number: next(iter(cpus)) for number, cpus in vcpus.items() if len(cpus) == 1}
        return {
            number: cpu
            for number, cpu in found.items()
            if users[cpu] == 1 and (not pool or cpu in pool)
        }

    def floats(self, number: int, cpus: CpuSet) -> bool:
        """Return whether a vCPU with these CPUs runs on all of several CPUs that Nova gave it."""
        return len(cpus) > 1 and self.cpus.get(vcpu(number)) == cpus

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON: cpusets in their written form."""
        return {
            "vcpu_pinning": {},
            "emulator_pinning": "",
            "iothread_pinning": {},
            **target.to_json(self.cpus),
            "numa_nodes": str(self.nodes),
            "vcpu_cells": {str(number): cell for number, cell in self.cells.items()},
            "realtime_vcpus": str(self.realtime),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Grant:
        """Read what :meth:`to_json` returns."""
        cpus = {vcpu(int(number)): each for number, each in value["vcpu_pinning"].items()}
        cpus |= {iothread(int(number)): each for number, each in value["iothread_pinning"].items()}
        cpus[EMULATOR] = value["emulator_pinning"]
        return cls(
            {what: parse_ids(each) for what, each in cpus.items() if each},
            {int(number): cell for number, cell in value["vcpu_cells"].items()},
            parse_ids(value["realtime_vcpus"]),
            parse_ids(value["numa_nodes"]),
        )
