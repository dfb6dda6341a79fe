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

"""The plan: the ordered steps from what a guest has to what it shall have.

Making one changes nothing: printed, it is the dry run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kongming.cpuset import CpuSet
from kongming.hypervisor.guest import Guest


@dataclass(frozen=True, slots=True)
class GuestState:
    """What a guest has now.

    :ivar pins: the cpuset that libvirt was told for each vCPU.
    :ivar affinity: where the threads of the plugged-in vCPUs really may run.
    """

    pins: Mapping[int, CpuSet]
    affinity: Mapping[int, CpuSet]


@dataclass(frozen=True, slots=True)
class PinVcpu:
    """The step that pins one vCPU; it knows its own undoing."""

    vcpu: int
    former: CpuSet
    wanted: CpuSet

    def apply(self, guest: Guest) -> None:
        """Carry the step out."""
        guest.pin_vcpu(self.vcpu, self.wanted)

    def undo(self, guest: Guest) -> None:
        """Go back to what was before.

        Also right for a step that libvirt refused: it leaves the refused
        set in the guest's cgroup, where it would confine the thread later.
        """
        guest.pin_vcpu(self.vcpu, self.former)


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps, in order; none if the guest has all that is wanted."""

    steps: tuple[PinVcpu, ...]

    def __bool__(self) -> bool:
        return bool(self.steps)

    def cpus(self) -> CpuSet:
        """Give all host CPUs that the plan makes use of."""
        return CpuSet(cpu for step in self.steps for cpu in step.wanted)

    def __str__(self) -> str:
        return f"vCPU pins {_changes(self.steps)}" if self.steps else "nothing to change"


def make(wanted: Mapping[int, CpuSet], state: GuestState, online: CpuSet) -> Plan:
    """Plan the steps from ``state`` to ``wanted``.

    :param wanted: vCPU → cpuset, for the vCPUs that anything is asked of.
    :param online: the host's CPUs that can run something; the others count
        for nothing in a thread's affinity.
    """
    return Plan(
        tuple(
            PinVcpu(vcpu, state.pins[vcpu], cpus)
            for vcpu, cpus in sorted(wanted.items())
            if state.pins[vcpu] != cpus or not _runs_there(state, vcpu, cpus, online)
        )
    )


def differences(wanted: Mapping[int, CpuSet], state: GuestState, online: CpuSet) -> str:
    """Say which vCPU threads run elsewhere than wanted; empty if none does."""
    return "; ".join(
        f"vCPU {vcpu} runs on {CpuSet(state.affinity[vcpu])}, wanted {cpus}"
        for vcpu, cpus in sorted(wanted.items())
        if not _runs_there(state, vcpu, cpus, online)
    )


def _runs_there(state: GuestState, vcpu: int, cpus: CpuSet, online: CpuSet) -> bool:
    return vcpu not in state.affinity or state.affinity[vcpu] & online == cpus & online


def _changes(steps: tuple[PinVcpu, ...]) -> str:
    """Write the changes shortly: vCPUs that change alike stand together."""
    alike: dict[tuple[CpuSet, CpuSet], list[int]] = {}
    for step in steps:
        alike.setdefault((step.former, step.wanted), []).append(step.vcpu)
    return ", ".join(
        f"{CpuSet(vcpus)}: {former} → {wanted}" for (former, wanted), vcpus in alike.items()
    )
