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

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Protocol, cast

from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import CPU_ASPECTS, Aspect, Target, Value, describe
from kongming.hypervisor.guest import Guest
from kongming.hypervisor.host import Host
from kongming.hypervisor.reading import Part, Reading


@dataclass(frozen=True, slots=True)
class GuestState:
    """What a guest has now.

    :ivar had: for every target that the guest has, what undoing and releasing return to:
        what libvirt was told, or what the kernel shows where libvirt was told nothing.
    :ivar told: what libvirt was told.
    :ivar observed: what the kernel shows, or what libvirt was told where it can't be observed;
        targets that are not there are left out.
    :ivar baseline: what the targets that Kongming touched had before.
    :ivar travelled: whether that was noted on another host, which the guest came from.
    """

    had: Mapping[Target, Value]
    told: Mapping[Target, Value]
    observed: Mapping[Target, Reading]
    baseline: Mapping[Target, Value]
    travelled: bool = False


class Step(Protocol):
    """One change of a guest, which knows its own undoing."""

    def apply(self, guest: Guest) -> None:
        """Carry the step out."""

    def undo(self, guest: Guest) -> None:
        """Go back to what was before; also right if libvirt refused the step."""


@dataclass(frozen=True, slots=True)
class Change:
    """Give one target another value.

    libvirt leaves a refused set in the guest's cgroup, where it would confine
    the thread later: undoing sets the former one in any case.
    """

    target: Target
    former: Value
    wanted: Value

    def apply(self, guest: Guest) -> None:
        guest.set(self.target, self.wanted)

    def undo(self, guest: Guest) -> None:
        guest.set(self.target, self.former)

    def __str__(self) -> str:
        return str(self.target)


@dataclass(frozen=True, slots=True)
class KeepBaseline:
    """Note in the domain what it had before it was touched."""

    former: Mapping[Target, Value]
    baseline: Mapping[Target, Value]

    def apply(self, guest: Guest) -> None:
        guest.write_baseline(self.baseline)

    def undo(self, guest: Guest) -> None:
        guest.write_baseline(self.former)

    def __str__(self) -> str:
        return "the baseline note"


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps, in order; none if the guest has all that it can have now.

    :ivar goals: what is to be observed afterwards.
    :ivar unusable: what can't be had now: target → CPUs that are offline, or that a
        control group above the guest's lacks.
    :ivar baseline: what all that is touched, by these steps or before, had before that.
    """

    goals: Mapping[Target, Value]
    unusable: Mapping[Target, CpuSet]
    steps: tuple[Step, ...]
    baseline: Mapping[Target, Value]

    def __bool__(self) -> bool:
        return bool(self.steps)

    def changes(self) -> tuple[Change, ...]:
        """Give those steps that change what the guest has."""
        return tuple(step for step in self.steps if isinstance(step, Change))

    def describe_unusable(self) -> str:
        """Return which CPUs are waited for, of which targets."""
        return ", ".join(f"CPU {cpus} of {what}" for what, cpus in self.unusable.items())

    def __str__(self) -> str:
        return describe(
            (change.target, f"{change.former} → {change.wanted}") for change in self.changes()
        )


def make(
    wanted: Mapping[Target, Value],
    state: GuestState,
    host: Host,
    whole: Set[Target] = frozenset(),
) -> Plan:
    """Plan the steps from ``state`` to ``wanted``.

    What Kongming touched and is no longer wanted goes back to its baseline:
    what a guest has must not depend on the requests that led to the last one.

    :param wanted: the targets that anything is asked of; none of them
        returns the guest to its baseline.
    :param whole: the vCPUs with dedicated CPUs. While one of them can't be pinned as planned, no
        pin is changed: two vCPUs would have one CPU.
    """
    touched = {
        what: _reachable(what, value, host)
        for what, value in state.baseline.items()
        if what in state.told
    }
    aims = touched | dict(wanted)
    goals = {what: _settable(what, value, host) for what, value in sorted(aims.items())}
    goals = {what: value for what, value in goals.items() if value != CpuSet()}
    if whole & aims.keys() - goals.keys():
        goals = {what: value for what, value in goals.items() if what.aspect not in CPU_ASPECTS}
    # A baseline counts as reached once libvirt takes it whole.
    unusable = {
        what: cpus
        for what, aim in aims.items()
        if (cpus := _unusable(what, aim, host)) and (what in wanted or goals.get(what) != aim)
    }
    changes = tuple(
        Change(what, state.had[what], value)
        for what, value in goals.items()
        if state.told[what] != value or _differs(state.observed, what, value, host)
    )
    during = {change.target: change.former for change in changes} | dict(state.baseline)
    pending = {*wanted, *unusable, *(aims.keys() - goals.keys())}
    after = {what: value for what, value in during.items() if what in pending}
    steps: list[Step] = [*changes]
    if during != state.baseline or state.travelled:
        steps.insert(0, KeepBaseline(state.baseline, during))
    if after != during:
        steps.append(KeepBaseline(during, after))
    return Plan(goals, unusable, tuple(steps), during)


def differences(
    goals: Mapping[Target, Value], observed: Mapping[Target, Reading], host: Host
) -> dict[Target, Part]:
    """Return what is observed to be other than its goal: the first part that is."""
    found = {what: _differs(observed, what, goal, host) for what, goal in goals.items()}
    return {what: part for what, part in found.items() if part is not None}


def unobserved(
    goals: Mapping[Target, Value], observed: Mapping[Target, Reading]
) -> tuple[Target, ...]:
    """Return the goals of which it is only known what libvirt was told."""
    return tuple(what for what in goals if what in observed and not observed[what].by_kernel)


def _reachable(what: Target, baseline: Value, host: Host) -> Value:
    """Return what of a baseline this host has: the guest may come from a larger one."""
    if what.aspect in CPU_ASPECTS:
        return CpuSet(cast(CpuSet, baseline) & host.present) or host.present
    if what.aspect is Aspect.MEMORY:
        return CpuSet(cast(CpuSet, baseline) & host.nodes) or host.nodes
    return baseline


def _settable(what: Target, value: Value, host: Host) -> Value:
    return host.settable(cast(CpuSet, value)) if what.aspect in CPU_ASPECTS else value


def _unusable(what: Target, value: Value, host: Host) -> CpuSet:
    if what.aspect not in CPU_ASPECTS:
        return CpuSet()
    return CpuSet(cast(CpuSet, value) - host.usable)


def _differs(
    observed: Mapping[Target, Reading], what: Target, goal: Value, host: Host
) -> Part | None:
    """Return the first part that has something else; None also if nothing can be seen.

    A vCPU that is not plugged in has no thread.
    """
    reading = observed.get(what)
    if reading is None:
        return None
    if what.aspect in CPU_ASPECTS:
        # The kernel leaves out what can't be used.
        usable = cast(CpuSet, goal) & host.usable
        return reading.first_that(lambda cpus: cast(CpuSet, cpus) & host.usable != usable)
    return reading.first_that(lambda value: value != goal)
