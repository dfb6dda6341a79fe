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

"""The plan: the ordered steps from a guest's state to its desired allocation.

Making one changes nothing; a dry run shows it.
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

    :ivar former: for every target that the guest has, the value to which undoing and releasing
        return: the configured one, or the kernel's where libvirt has configured none.
    :ivar configured: what libvirt has as the configuration.
    :ivar observed: what the kernel shows, or the configured value where it can't be observed;
        targets that do not exist are left out.
    :ivar baseline: what the targets that Kongming changed had before.
    :ivar travelled: whether another host wrote the baseline, from which the guest came.
    """

    former: Mapping[Target, Value]
    configured: Mapping[Target, Value]
    observed: Mapping[Target, Reading]
    baseline: Mapping[Target, Value]
    travelled: bool = False


class Step(Protocol):
    """One change of a guest, which can undo itself."""

    def apply(self, guest: Guest) -> None:
        """Carry the step out."""

    def undo(self, guest: Guest) -> None:
        """Restore the former value; also correct if libvirt refused the step."""


@dataclass(frozen=True, slots=True)
class Change:
    """Sets one target to another value.

    libvirt leaves a refused set in the guest's cgroup, where it would confine the thread later:
    undoing sets the former one in any case.
    """

    target: Target
    former: Value
    desired: Value

    def apply(self, guest: Guest) -> None:
        guest.set(self.target, self.desired)

    def undo(self, guest: Guest) -> None:
        guest.set(self.target, self.former)

    def __str__(self) -> str:
        return str(self.target)


@dataclass(frozen=True, slots=True)
class KeepBaseline:
    """Notes the baseline in the domain."""

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
    """The steps, in order; none if the guest has all that is available now.

    :ivar goals: what must be observed afterwards.
    :ivar unusable: what is unavailable now: target → CPUs that are offline, or that a control
        group above the guest's lacks.
    :ivar baseline: what all targets that are changed, by these steps or before, had before.
    """

    goals: Mapping[Target, Value]
    unusable: Mapping[Target, CpuSet]
    steps: tuple[Step, ...]
    baseline: Mapping[Target, Value]

    def __bool__(self) -> bool:
        return bool(self.steps)

    def changes(self) -> tuple[Change, ...]:
        """Return the steps that set a target."""
        return tuple(step for step in self.steps if isinstance(step, Change))

    def describe_unusable(self) -> str:
        """Return which CPUs are waited for, of which targets."""
        return ", ".join(f"CPU {cpus} of {what}" for what, cpus in self.unusable.items())

    def __str__(self) -> str:
        return describe(
            (change.target, f"{change.former} → {change.desired}") for change in self.changes()
        )


def make(
    desired: Mapping[Target, Value],
    state: GuestState,
    host: Host,
    whole: Set[Target] = frozenset(),
) -> Plan:
    """Plan the steps from ``state`` to ``desired``.

    A target that Kongming changed and that is no longer requested returns to its baseline: the
    state of a guest must not depend on former requests.

    :param desired: the targets with a request; none of them returns the guest to its baseline.
    :param whole: the vCPUs with dedicated CPUs. While one of them can't be pinned as planned,
        no pin is changed: two vCPUs would have one CPU.
    """
    touched = {
        what: _reachable(what, value, host)
        for what, value in state.baseline.items()
        if what in state.configured
    }
    aims = touched | dict(desired)
    goals = {what: _settable(what, value, host) for what, value in sorted(aims.items())}
    goals = {what: value for what, value in goals.items() if value != CpuSet()}
    if whole & aims.keys() - goals.keys():
        goals = {what: value for what, value in goals.items() if what.aspect not in CPU_ASPECTS}
    # A baseline is reached once libvirt accepts all of it.
    unusable = {
        what: cpus
        for what, aim in aims.items()
        if (cpus := _unusable(what, aim, host)) and (what in desired or goals.get(what) != aim)
    }
    changes = tuple(
        Change(what, state.former[what], value)
        for what, value in goals.items()
        if state.configured[what] != value or _differs(state.observed, what, value, host)
    )
    during = {change.target: change.former for change in changes} | dict(state.baseline)
    pending = {*desired, *unusable, *(aims.keys() - goals.keys())}
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
    """Return the goals that are not observed, each with the first part that differs."""
    found = {what: _differs(observed, what, goal, host) for what, goal in goals.items()}
    return {what: partition for what, partition in found.items() if partition is not None}


def unobserved(
    goals: Mapping[Target, Value], observed: Mapping[Target, Reading]
) -> tuple[Target, ...]:
    """Return the goals of which only the configured value is known."""
    return tuple(what for what in goals if what in observed and not observed[what].by_kernel)


def _reachable(what: Target, baseline: Value, host: Host) -> Value:
    """Return what this host has of a baseline: the guest may come from a larger host."""
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
    """Return the first part that differs; None also if nothing can be observed.

    A vCPU that is not plugged in has no thread.
    """
    reading = observed.get(what)
    if reading is None:
        return None
    if what.aspect in CPU_ASPECTS:
        # The kernel leaves out unusable CPUs.
        usable = cast(CpuSet, goal) & host.usable
        return reading.first_that(lambda cpus: cast(CpuSet, cpus) & host.usable != usable)
    return reading.first_that(lambda value: value != goal)
