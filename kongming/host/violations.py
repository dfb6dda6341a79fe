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
"""Violations: where the placement on a host breaks its rules.

A function without side effects. Violations are reported, never corrected: only the operator knows
which guest is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
import enum
import functools
from typing import Any

from kongming.allocation.cpuset import CpuSet, listed
from kongming.host import isolated_sets, sharing
from kongming.host.occupant import Occupant
from kongming.host.rules import Overlap, Rules
from kongming.host.topology import Topology, ids

_NONE = CpuSet()
# How many guests the message names at most; the violation has all.
_NAMED_MAX = 4


class Kind(enum.StrEnum):
    """The kinds of violations."""

    OVERLAP = "overlap"
    SMT_SIBLING = "smt_sibling"
    RESERVED = "reserved"
    OFFLINE = "offline"
    ISOLATED = "isolated"
    REMOTE_MEMORY = "remote_memory"


@dataclass(frozen=True, slots=True)
class Violation:
    """One violation.

    :ivar instance_uuids: the guests concerned.
    :ivar cpus: the host CPUs concerned.
    :ivar nodes: the NUMA nodes concerned; empty if none are.
    :ivar message: for the operator.
    """

    kind: Kind
    instance_uuids: tuple[str, ...]
    cpus: CpuSet
    message: str
    nodes: CpuSet = _NONE

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON: sets in their written form, empty text for none."""
        return {
            "kind": str(self.kind),
            "instance_uuids": list(self.instance_uuids),
            "cpus": str(self.cpus),
            "nodes": str(self.nodes),
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class _Guest:
    """A guest and all CPUs that its vCPUs are pinned to."""

    occupant: Occupant
    cpus: CpuSet

    def __str__(self) -> str:
        guest = self.occupant
        who = "placed by Kongming" if guest.touched else "Nova's" if guest.nova else "not Nova's"
        return f"instance {guest.instance_uuid} ({guest.name}, {who})"

    def violation(self, kind: Kind, cpus: CpuSet, what: str, nodes: CpuSet = _NONE) -> Violation:
        return Violation(kind, (self.occupant.instance_uuid,), cpus, f"{self}{what}", nodes)


def find(topology: Topology, occupants: Iterable[Occupant], rules: Rules) -> tuple[Violation, ...]:
    """Return the violations on a host.

    * ``overlap``: guests that share CPUs, unless the rules allow it. At least one was placed
      by Kongming, or is Nova's.
    * ``smt_sibling``: guests on different CPUs of the same cores, unless the rules allow it. At
      least one was placed by Kongming: Nova packs its own.
    * ``reserved``: a guest on CPUs that are reserved for something else, except Nova's own pins
      to its dedicated CPUs.
    * ``offline``: a guest that is pinned to CPUs that are offline or do not exist.
    * ``isolated``: a guest with vCPUs on a set of CPUs that the kernel does not spread threads
      over, pinned or not.
    * ``remote_memory``: a guest whose memory is bound to NUMA nodes none of which is near to the
      CPUs that its vCPUs are pinned to.
    """
    everyone = sorted(occupants, key=lambda each: each.instance_uuid)
    guests = [_Guest(each, each.cpus) for each in everyone if not each.floating]
    seats = sharing.seats(guest.cpus for guest in guests)
    present = ids(topology.cpus)
    online = ids(cpu for cpu in topology.cpus if cpu.online)
    return (
        *_overlaps(guests, seats, rules),
        *_siblings(guests, seats, topology, rules),
        *(found for guest in guests for found in _reserved(guest, rules)),
        *(found for guest in guests for found in _offline(guest, present, online)),
        *_isolated(everyone, topology.isolated),
        *_remote_memory(guests, topology),
    )


def _overlaps(
    guests: Sequence[_Guest], seats: dict[int, int], rules: Rules
) -> Iterator[Violation]:
    if rules.overlap is Overlap.ALLOW:
        return
    relevant = _bits(guests, lambda each: each.touched or each.nova)
    for cpus, there in sharing.shared_cpus(seats):
        if there & relevant:
            sharers = _at(guests, there)
            yield Violation(
                Kind.OVERLAP,
                tuple(guest.occupant.instance_uuid for guest in sharers),
                cpus,
                f"CPU {listed(cpus)} is shared by {_some(sharers)}",
            )


def _siblings(
    guests: Sequence[_Guest], seats: dict[int, int], topology: Topology, rules: Rules
) -> Iterator[Violation]:
    if rules.smt is Overlap.ALLOW:
        return
    placed = _bits(guests, lambda each: each.touched)
    for parts in sharing.shared_cores(seats, topology.shared_cores):
        there = functools.reduce(int.__or__, (part for _cpus, part in parts))
        if there & placed:
            # A core has up to eight CPUs, with any number of guests on each.
            described = [
                f"CPU {listed(cpus)} with {_some(_at(guests, who), 2)}" for cpus, who in parts
            ]
            yield Violation(
                Kind.SMT_SIBLING,
                tuple(guest.occupant.instance_uuid for guest in _at(guests, there)),
                CpuSet.union(cpus for cpus, _part in parts),
                f"guests share cores: {_some(described)}",
            )


def _reserved(guest: _Guest, rules: Rules) -> Iterator[Violation]:
    occupant, reserved, dedicated = guest.occupant, rules.reserved_cpus, rules.dedicated_cpus
    if occupant.nova and not occupant.touched:
        # An operator may have reserved CPUs that nova.conf dedicates.
        reserved, dedicated = reserved - dedicated, _NONE
    elif occupant.grant is not None:
        dedicated = CpuSet(dedicated - occupant.grant.everything)
    # This rule applies to Kongming's choices only.
    allowed = rules.allowed_cpus if occupant.touched and occupant.grant is None else None
    barred = (
        (guest.cpus & reserved, "reserved ([guard] reserved_cpus is {})", rules.reserved_cpus),
        (guest.cpus & dedicated, "for guests with dedicated CPUs ({})", dedicated),
        (
            _NONE if allowed is None else guest.cpus - allowed,
            "not allowed ([guard] allowed_cpus is {})",
            allowed,
        ),
    )
    parts = [
        f"CPU {listed(cpus)} is {why.format(listed(rule))}" for cpus, why, rule in barred if cpus
    ]
    if parts:
        yield guest.violation(
            Kind.RESERVED,
            CpuSet.union(cpus for cpus, _why, _rule in barred),
            f" is pinned where it should not be: {', '.join(parts)}",
        )


def _offline(guest: _Guest, present: CpuSet, online: CpuSet) -> Iterator[Violation]:
    if guest.cpus <= online:
        return
    missing = guest.cpus - online
    offline, absent = missing & present, missing - present
    parts = [
        f"CPU {listed(cpus)} {what}"
        for cpus, what in ((offline, "is offline"), (absent, "does not exist"))
        if cpus
    ]
    yield guest.violation(Kind.OFFLINE, missing, f" is pinned to missing CPUs: {', '.join(parts)}")


def _isolated(everyone: Iterable[Occupant], isolated: CpuSet) -> Iterator[Violation]:
    for each in everyone if isolated else ():
        guest = _Guest(each, _NONE)
        for within, message in isolated_sets.of_vcpus(each.pins, isolated):
            yield guest.violation(Kind.ISOLATED, within, f": {message}")
        # A guest that floats over other CPUs, too, runs on those.
        floats_over = each.cpuset if each.floating else None
        if floats_over and len(floats_over) > 1 and floats_over <= isolated:
            yield guest.violation(
                Kind.ISOLATED,
                floats_over,
                ": it floats over isolated CPUs only, and the kernel does not spread threads over "
                "these; remove them from nova.conf's cpu_shared_set",
            )


def _remote_memory(guests: Iterable[_Guest], topology: Topology) -> Iterator[Violation]:
    homes = {cpu.id: cell.id for cell in topology.cells for cpu in cell.cpus}
    members = {cell.id: ids(cell.cpus) for cell in topology.cells}
    assigned = CpuSet(homes)
    near = topology.near_memory()
    computing: dict[int, list[int]] = {}
    for cell, nodes in near.items():
        for node in nodes:
            computing.setdefault(node, []).append(cell)
    for guest in guests:
        bound = guest.occupant.memory_nodes
        if bound is None or not guest.cpus <= assigned:
            continue
        beside = {cell for node in bound for cell in computing.get(node, ())}
        if any(not members[cell].isdisjoint(guest.cpus) for cell in beside):
            continue
        there = CpuSet({homes[cpu] for cpu in guest.cpus})
        better = CpuSet.union(near[cell] for cell in there)
        where = f"NUMA node {listed(there)}, its memory is bound to node {listed(bound)}"
        if better != there:
            where += f"; the nearest memory is that of node {listed(better)}"
        yield guest.violation(
            Kind.REMOTE_MEMORY, guest.cpus, f": its vCPUs are pinned to {where}", bound
        )


def _bits(guests: Iterable[_Guest], which: Callable[[Occupant], bool]) -> int:
    return sum(1 << number for number, guest in enumerate(guests) if which(guest.occupant))


def _at(guests: Sequence[_Guest], there: int) -> list[_Guest]:
    return [guests[number] for number in sharing.numbers(there)]


def _some(named: Sequence[object], most: int = _NAMED_MAX) -> str:
    more = [f"{len(named) - most} more"] if len(named) > most else []
    return ", ".join([*map(str, named[:most]), *more])
