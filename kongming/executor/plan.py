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
from typing import Protocol

from kongming.cpuset import CpuSet
from kongming.hypervisor.guest import Guest


@dataclass(frozen=True, slots=True)
class GuestState:
    """What a guest has now.

    :ivar pins: the cpuset that libvirt was told for each vCPU.
    :ivar affinity: where the threads of the plugged-in vCPUs really may run;
        vCPUs whose pins differ from what is wanted may be left out.
    :ivar baseline: the pins before Kongming first touched the guest; None if
        it never did.
    """

    pins: Mapping[int, CpuSet]
    affinity: Mapping[int, CpuSet]
    baseline: Mapping[int, CpuSet] | None


class Step(Protocol):
    """One change of a guest, which knows its own undoing."""

    def apply(self, guest: Guest) -> None:
        """Carry the step out."""

    def undo(self, guest: Guest) -> None:
        """Go back to what was before; also right if libvirt refused the step."""


@dataclass(frozen=True, slots=True)
class PinVcpu:
    """Pin one vCPU.

    libvirt leaves a refused set in the guest's cgroup, where it would confine
    the thread later: undoing pins to the former set in any case.
    """

    vcpu: int
    former: CpuSet
    wanted: CpuSet

    def apply(self, guest: Guest) -> None:
        guest.pin_vcpu(self.vcpu, self.wanted)

    def undo(self, guest: Guest) -> None:
        guest.pin_vcpu(self.vcpu, self.former)

    def __str__(self) -> str:
        return f"vCPU {self.vcpu}"


@dataclass(frozen=True, slots=True)
class KeepBaseline:
    """Note in the domain what it had before it was first touched."""

    pins: Mapping[int, CpuSet]

    def apply(self, guest: Guest) -> None:
        guest.keep_baseline(self.pins)

    def undo(self, guest: Guest) -> None:
        guest.forget_baseline()

    def __str__(self) -> str:
        return "the note of the baseline"


@dataclass(frozen=True, slots=True)
class ForgetBaseline:
    """Take the note away: the domain is as if it had never been touched."""

    pins: Mapping[int, CpuSet]

    def apply(self, guest: Guest) -> None:
        guest.forget_baseline()

    def undo(self, guest: Guest) -> None:
        guest.keep_baseline(self.pins)

    def __str__(self) -> str:
        return "the note of the baseline"


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps, in order; none if the guest has all that is wanted.

    :ivar wanted: vCPU → cpuset, to be seen on the threads afterwards.
    """

    wanted: Mapping[int, CpuSet]
    steps: tuple[Step, ...]

    def __bool__(self) -> bool:
        return bool(self.steps)

    def pins(self) -> tuple[PinVcpu, ...]:
        """Give those steps that pin a vCPU."""
        return tuple(step for step in self.steps if isinstance(step, PinVcpu))

    def __str__(self) -> str:
        return f"vCPU pins {_changes(self.pins())}" if self.pins() else "nothing to change"


def place(wanted: Mapping[int, CpuSet], state: GuestState, online: CpuSet) -> Plan:
    """Plan the steps from ``state`` to ``wanted``.

    :param wanted: vCPU → cpuset, for the vCPUs that anything is asked of.
    :param online: the host's CPUs that can run something; the others count
        for nothing in a thread's affinity.
    """
    pins: tuple[Step, ...] = _pins(wanted, state, online)
    if pins and state.baseline is None:
        return Plan(wanted, (KeepBaseline(state.pins), *pins))
    return Plan(wanted, pins)


def restore(baseline: Mapping[int, CpuSet], state: GuestState, online: CpuSet) -> Plan:
    """Plan the steps from ``state`` back to ``baseline``."""
    return Plan(baseline, (*_pins(baseline, state, online), ForgetBaseline(baseline)))


def _pins(wanted: Mapping[int, CpuSet], state: GuestState, online: CpuSet) -> tuple[PinVcpu, ...]:
    return tuple(
        PinVcpu(vcpu, state.pins[vcpu], cpus)
        for vcpu, cpus in sorted(wanted.items())
        if state.pins[vcpu] != cpus or not _runs_there(state.affinity, vcpu, cpus, online)
    )


def differences(
    wanted: Mapping[int, CpuSet], affinity: Mapping[int, CpuSet], online: CpuSet
) -> str:
    """Say which vCPU threads run elsewhere than wanted; empty if none does."""
    return "; ".join(
        f"vCPU {vcpu} runs on {affinity[vcpu]}, wanted {cpus}"
        for vcpu, cpus in sorted(wanted.items())
        if not _runs_there(affinity, vcpu, cpus, online)
    )


def _runs_there(affinity: Mapping[int, CpuSet], vcpu: int, cpus: CpuSet, online: CpuSet) -> bool:
    # A vCPU that is not plugged in has no thread.
    return vcpu not in affinity or affinity[vcpu] & online == cpus & online


def _changes(pins: tuple[PinVcpu, ...]) -> str:
    """Write the changes shortly: vCPUs that change alike stand together."""
    alike: dict[tuple[CpuSet, CpuSet], list[int]] = {}
    for pin in pins:
        alike.setdefault((pin.former, pin.wanted), []).append(pin.vcpu)
    return ", ".join(
        f"{CpuSet(vcpus)}: {former} → {wanted}" for (former, wanted), vcpus in alike.items()
    )
