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

"""Places one guest: observe, plan, guard, apply, verify.

A dry run does the same, as far as the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
import logging
from typing import cast

from kongming import exception
from kongming.allocation import target
from kongming.allocation.allocation import Allocation
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import CPU_ASPECTS, Aspect, Target, Value
from kongming.executor.placing import guard, neighbours
from kongming.executor.placing import plan as plans
from kongming.executor.placing.admission import Move
from kongming.executor.placing.apply import carry_out
from kongming.executor.placing.claims import Claims
from kongming.executor.placing.neighbours import Neighbours
from kongming.host import isolated_sets
from kongming.host.grant import Grant
from kongming.host.rules import Overlap, Rules
from kongming.host.topology import Topology
from kongming.hypervisor.definition import Definition
from kongming.hypervisor.guest import Guest
from kongming.hypervisor.host import Host
from kongming.hypervisor.reading import Reading

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prospect:
    """A guest as it is, and the plan for it.

    :ivar host: the host as the guest has it.
    :ivar desired: the value that each target will have.
    :ivar state: what the guest has.
    :ivar shortfalls: which parts of the request are impossible, each with its reason.
    :ivar grant: what Nova gave the guest, if it has a NUMA topology.
    """

    host: Host
    desired: Mapping[Target, Value]
    state: plans.GuestState
    plan: plans.Plan
    shortfalls: tuple[exception.Refused, ...] = ()
    grant: Grant | None = None

    def describe_drift(self) -> str:
        """Return where the guest has something else than desired."""
        return target.describe(
            (step.target, f"found {self._has(step)}, desired {step.desired}")
            for step in self.plan.changes()
        )

    def move(self, instance_uuid: str) -> Move:
        """Return what the guest will have, as far as it concerns other guests."""
        after = {**self.state.configured, **self.plan.goals}
        pins = {
            what.number: cast(CpuSet, cpus)
            for what, cpus in after.items()
            if what.aspect is Aspect.VCPU
            and not (self._floats(what, cpus) or self.host.online <= cast(CpuSet, cpus))
        }
        confined = {
            what: each for what, each in self.desired.items() if not self._floats(what, each)
        }
        return Move(instance_uuid, guard.requested_cpus(confined), pins)

    def _floats(self, what: Target, value: Value) -> bool:
        """Return whether a vCPU has all of several CPUs that Nova gave it."""
        return (
            self.grant is not None
            and what.aspect is Aspect.VCPU
            and self.grant.floats(what.number, cast(CpuSet, value))
        )

    def _has(self, step: plans.Change) -> object:
        configured = self.state.configured[step.target]
        if configured != step.desired:
            return configured
        reading = self.state.observed[step.target]
        return reading.first_that(lambda value: value != step.desired) or configured


@dataclass(frozen=True, slots=True)
class Placed:
    """The result of placing a guest.

    :ivar plan: the steps that were carried out.
    :ivar note: further information for the operator; may be empty.
    :ivar moving: the instances that have to leave this guest's CPUs.
    :ivar unobserved: what libvirt only confirmed, and why it can't be observed; empty if
        everything was observed.
    :ivar through_libvirt: whether libvirt observed the threads.
    """

    plan: plans.Plan
    note: str = ""
    moving: frozenset[str] = frozenset()
    unobserved: str = ""
    through_libvirt: bool = False

    @property
    def confirmation(self) -> str:
        """How the effect was verified."""
        if self.unobserved:
            return f"libvirt confirmed it, {self.unobserved}"
        return f"observed {'through libvirt' if self.through_libvirt else 'on the threads'}"


class Placer:
    """Brings guests to allocations, within the operator's rules.

    :param rules: returns the rules in force.
    :param topology: returns the host's topology.
    """

    def __init__(
        self, rules: Callable[[], Rules], claims: Claims, topology: Callable[[], Topology]
    ) -> None:
        self._rules = rules
        self._claims = claims
        self._topology = topology

    def plan(self, allocation: Allocation, guest: Guest, *, accepted: bool) -> Prospect:
        """Observe a guest and plan how to bring it to an allocation.

        :param accepted: whether the allocation was in force before. Then CPUs that went offline
            since are waited for, not refused, and parts that became impossible do not lift the
            others.
        :raises Refused: if the guest may not, or can't, have the allocation.
        """
        definition, host, rules = guest.definition(), guest.host, self._rules()
        requested: dict[Target, Value] = {}
        permitted, refusals = requested, list[exception.Refused]()
        if allocation and accepted:
            guard.check_guest(definition, rules)
            requested = allocation.resolve(definition.vcpus, definition.iothreads)
            permitted, refusals = guard.partition(requested, definition, host, rules)
            refusals += allocation.lacking(definition.vcpus, definition.iothreads)
        elif allocation:
            requested = permitted = _resolve(allocation, definition, host, rules)
            guard.check_usable(guard.requested_cpus(requested), host)
        state = _observe(guest, definition, requested)
        shortfalls = _shortfalls(guest, permitted, state)
        desired = {what: value for what, value in permitted.items() if what not in shortfalls}
        left = _unchanged(requested.keys() - permitted, definition, state)
        return Prospect(
            host,
            desired,
            state,
            plans.make(desired | left, state, host, _dedicated(definition, rules)),
            (*refusals, *shortfalls.values()),
            definition.grant,
        )

    def check_windows(self, allocation: Allocation, guest: Guest) -> None:
        """Refuse now what would be refused when a window begins.

        :raises Refused: naming the window.
        """
        if not allocation.windows:
            return
        definition, rules = guest.definition(), self._rules()
        for each in allocation.windows:
            try:
                # CPUs that are offline now may be online then.
                _resolve(allocation.during(each), definition, guest.host, rules)
            except exception.Refused as refusal:
                raise type(refusal)(f"in window {each.window.name}: {refusal}") from refusal

    def warnings(self, instance_uuid: str, prospect: Prospect) -> list[str]:
        """Return the warnings about a placement before it is carried out.

        :raises Overlap: if CPUs are shared with another guest, and the rules forbid it.
        :raises SmtSibling: if cores are.
        """
        with self.claimed(instance_uuid, prospect) as found:
            return found

    @contextmanager
    def claimed(self, instance_uuid: str, prospect: Prospect) -> Iterator[list[str]]:
        """Yield the warnings about a placement; the guest claims its CPUs in this context.

        It raises the errors of :meth:`warnings`.
        """
        with self._claimed(instance_uuid, prospect) as found:
            self._claims.expect(found.moving)
            yield [*found.warnings, *self._unbalanced(prospect)]

    def foresee(self, prospects: Mapping[str, Prospect], refused: Set[str]) -> Placer:
        """Return a placer for the dry run of a request for several instances.

        It judges a guest by what the others of the request will have.

        :param prospects: by instance, what it will have if no other guest prevents it.
        :param refused: the instances that stay as they are.
        """
        moves = {
            uuid: found.move(uuid) for uuid, found in prospects.items() if found.plan.changes()
        }
        stay = dict.fromkeys((*prospects.keys() - moves, *refused))
        return Placer(self._rules, self._claims.foresee(stay | moves), self._topology)

    def place(self, instance_uuid: str, prospect: Prospect, guest: Guest, *, new: bool) -> Placed:
        """Carry out a plan.

        :param new: whether the guest gets this for the first time since it started: only then the
            other guests may prevent it.
        :raises Refused: if the guest may not, or can't, have it.
        :raises GuestBusy: if a job of libvirt's occupies the guest now.
        :raises Failed: if it failed; the guest is as it was.
        """
        if not prospect.plan:
            return _placed(prospect.plan, prospect.state.observed, guest)
        guest.check_free()
        moving: frozenset[str] = frozenset()
        notes = []
        if new and prospect.desired:
            with self._claimed(instance_uuid, prospect) as found:
                notes += [*found.warnings, *self._unbalanced(prospect)]
                observed = carry_out(prospect.plan, guest)
            moving = found.moving
        else:
            observed = carry_out(prospect.plan, guest)
        notes.append(_memory_note(prospect.plan, guest))
        note = "; ".join(filter(None, notes))
        return replace(_placed(prospect.plan, observed, guest), note=note, moving=moving)

    @contextmanager
    def _claimed(self, instance_uuid: str, prospect: Prospect) -> Iterator[Neighbours]:
        rules = self._rules()
        move = prospect.move(instance_uuid)
        if not move.cpus or rules.overlap is rules.smt is Overlap.ALLOW:
            yield Neighbours()
            return
        cores = {} if rules.smt is Overlap.ALLOW else self._topology().cores
        with self._claims.claim(move, partial(neighbours.check, move, rules, cores)) as found:
            yield found

    def _unbalanced(self, prospect: Prospect) -> list[str]:
        pins = isolated_sets.of_request(prospect.desired)
        return isolated_sets.warnings(pins, self._topology().isolated) if pins else []


def _resolve(
    allocation: Allocation, definition: Definition, host: Host, rules: Rules
) -> dict[Target, Value]:
    """Return the value of each target of a guest.

    :raises Refused: if the guest may not, or can't, have all of it.
    """
    guard.check_guest(definition, rules)
    for refusal in allocation.lacking(definition.vcpus, definition.iothreads):
        raise refusal
    requested = allocation.resolve(definition.vcpus, definition.iothreads)
    guard.check_request(requested, definition, host, rules)
    return requested


def _unchanged(
    barred: Set[Target], definition: Definition, state: plans.GuestState
) -> dict[Target, Value]:
    """Return what stays as it is, because the rules no longer permit what is requested.

    A reload moves no guest. A placement from another host was never permitted here.
    """
    if state.travelled:
        return {}
    if definition.grant is not None and any(what.aspect in CPU_ASPECTS for what in barred):
        # Its CPUs are judged as a whole, so they also stay as a whole.
        barred = barred | {what for what in state.baseline if what.aspect in CPU_ASPECTS}
    return {what: state.configured[what] for what in barred if what in state.configured}


def _dedicated(definition: Definition, rules: Rules) -> Set[Target]:
    if definition.grant is None:
        return frozenset()
    return {target.vcpu(number) for number in definition.grant.dedicated(rules.dedicated_cpus)}


def _observe(
    guest: Guest, definition: Definition, desired: Mapping[Target, Value]
) -> plans.GuestState:
    observed = guest.observe({*definition.baseline, *desired}, definition)
    # The CPU time is not in the definition: libvirt reads it from the kernel.
    read = {what: each.parts[0].value for what, each in observed.items()}
    configured: dict[Target, Value] = read | dict(definition.configured)
    former = dict(configured)
    for what, reading in observed.items():
        narrower = _narrower(what, reading, definition, guest.host)
        if narrower is not None:
            former[what] = narrower
    return plans.GuestState(
        former, configured, observed, definition.baseline, definition.has_foreign_baseline
    )


def _narrower(what: Target, reading: Reading, definition: Definition, host: Host) -> CpuSet | None:
    """Return where threads run that libvirt has not configured, if not everywhere.

    Something else has confined them: taskset, or the kernel's isolcpus.
    """
    if what.aspect not in CPU_ASPECTS or what in definition.explicit:
        return None
    cpus = cast(CpuSet | None, reading.common)
    return cpus if reading.by_kernel and cpus and cpus & host.usable < host.usable else None


def _shortfalls(
    guest: Guest, desired: Mapping[Target, Value], state: plans.GuestState
) -> dict[Target, exception.Refused]:
    """Return what libvirt can't control on this host; the rest is judged by itself."""
    found: dict[Target, exception.Refused] = {}
    if target.SHARES in desired and target.SHARES not in state.configured:
        found[target.SHARES] = exception.SharesUnsupported(_uncontrolled("CPU shares", "cpu"))
    if target.QUOTA in desired and target.QUOTA not in state.configured:
        found[target.QUOTA] = exception.QuotaUnsupported(_uncontrolled("vCPU quota", "cpu"))
    if target.MEMORY in desired and not guest.has_cpuset_controller:
        found[target.MEMORY] = exception.MemoryUnsupported(_uncontrolled("memory nodes", "cpuset"))
    return found


def _uncontrolled(what: str, controller: str) -> str:
    return (
        f"{what} can't be set: libvirt has no control group with the controller {controller} for "
        "this guest; see cgroup_controllers of qemu.conf and 'kongming-status upgrade check'"
    )


def _placed(done: plans.Plan, observed: Mapping[Target, Reading], guest: Guest) -> Placed:
    unobserved = plans.unobserved(done.goals, observed)
    why = f"{target.labels(unobserved)} can't be observed: {guest.hidden}" if unobserved else ""
    return Placed(done, unobserved=why, through_libvirt=not guest.is_found)


def _memory_note(done: plans.Plan, guest: Guest) -> str:
    """Return how much of the memory is on the desired nodes."""
    if not any(change.target == target.MEMORY for change in done.changes()):
        return ""
    nodes = cast(CpuSet, done.goals[target.MEMORY])
    memory = guest.memory_kib()
    if memory is None:
        return f"the memory can't be counted ({guest.hidden or 'that needs CAP_SYS_PTRACE'})"
    there = sum(kib for node, kib in memory.items() if node in nodes)
    left = ", ".join(
        f"{kib} KiB stayed on node {node}"
        for node, kib in memory.items()
        if node not in nodes and kib
    )
    return f"{there} KiB of memory on node {nodes}" + (f", {left}" if left else "")
