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
"""Violations: what of a host's placement is not as it should be.

A function without side effects, from what is to what is wrong with it. What
it finds is told, never corrected: whose mistake it is only the operator knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
import enum
from typing import Any

from kongming.cpuset import CpuSet
from kongming.executor.rules import Overlap, Rules
from kongming.hypervisor.occupant import Occupant
from kongming.hypervisor.topology import Topology, ids

_NONE = CpuSet()
# The message names so many guests at most; all are in the violation.
_NAMED_MAX = 4


class Kind(enum.StrEnum):
    """The kinds of violations."""

    OVERLAP = "overlap"
    RESERVED = "reserved"
    OFFLINE = "offline"
    MEMORY_AWAY = "memory_away"


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong.

    :ivar instance_uuids: the guests that it is about.
    :ivar cpus: the host CPUs that it is about.
    :ivar nodes: the NUMA nodes that it is about; empty if it is not.
    :ivar message: for the operator.
    """

    kind: Kind
    instance_uuids: tuple[str, ...]
    cpus: CpuSet
    message: str
    nodes: CpuSet = _NONE

    def to_json(self) -> dict[str, Any]:
        """Give it as JSON: sets in their written form, empty text for none."""
        return {
            "kind": str(self.kind),
            "instance_uuids": list(self.instance_uuids),
            "cpus": str(self.cpus),
            "nodes": str(self.nodes),
            "message": self.message,
        }


def find(topology: Topology, occupants: Iterable[Occupant], rules: Rules) -> tuple[Violation, ...]:
    """Say what is wrong on a host; guests whose vCPUs are not pinned can't be.

    * ``overlap``: guests that share CPUs, unless the rules allow it. At least
      one was placed by Kongming, or is Nova's.
    * ``reserved``: a guest on CPUs that are kept for something else. What
      Nova pins to CPUs of its own is right there.
    * ``offline``: a guest that is pinned to CPUs that are offline or not there.
    * ``memory_away``: a guest whose memory is bound to none of the NUMA nodes
      that its vCPUs are pinned to.
    """
    guests = sorted(
        (each for each in occupants if not each.floating), key=lambda each: each.instance_uuid
    )
    return (
        *_overlaps(guests, rules),
        *(found for guest in guests for found in _reserved(guest, rules)),
        *(found for guest in guests for found in _offline(guest, topology)),
        *(found for guest in guests for found in _memory_away(guest, topology)),
    )


def _overlaps(guests: Sequence[Occupant], rules: Rules) -> Iterator[Violation]:
    """Take together the CPUs that the same guests share."""
    if rules.overlap is Overlap.ALLOW:
        return
    sitting: dict[int, list[int]] = {}
    for number, guest in enumerate(guests):
        for cpu in guest.cpus:
            sitting.setdefault(cpu, []).append(number)
    shared: dict[tuple[int, ...], list[int]] = {}
    for cpu, numbers in sorted(sitting.items()):
        if len(numbers) > 1:
            shared.setdefault(tuple(numbers), []).append(cpu)
    for sharing, cpus in shared.items():
        there = [guests[number] for number in sharing]
        if any(guest.touched or guest.nova for guest in there):
            yield Violation(
                Kind.OVERLAP,
                tuple(guest.instance_uuid for guest in there),
                CpuSet(cpus),
                f"CPU {CpuSet(cpus)} is shared by {_some(there)}",
            )


def _reserved(guest: Occupant, rules: Rules) -> Iterator[Violation]:
    novas_own = guest.nova and not guest.touched
    barred = {
        # An operator may have reserved by hand what nova.conf dedicates.
        f"reserved ([guard] reserved_cpus is {rules.reserved_cpus})": guest.cpus
        & (rules.reserved_cpus - (rules.dedicated_cpus if novas_own else _NONE)),
        f"Nova's for guests with dedicated CPUs ({rules.dedicated_cpus})": _NONE
        if novas_own
        else guest.cpus & rules.dedicated_cpus,
        # This rule is about what Kongming places.
        f"not allowed ([guard] allowed_cpus is {rules.allowed_cpus})": _NONE
        if rules.allowed_cpus is None or not guest.touched
        else guest.cpus - rules.allowed_cpus,
    }
    found = {why: CpuSet(cpus) for why, cpus in barred.items() if cpus}
    if found:
        told = ", ".join(f"CPU {cpus} is {why}" for why, cpus in found.items())
        yield Violation(
            Kind.RESERVED,
            (guest.instance_uuid,),
            CpuSet(cpu for cpus in found.values() for cpu in cpus),
            f"{_named(guest)} is pinned where it should not be: {told}",
        )


def _offline(guest: Occupant, topology: Topology) -> Iterator[Violation]:
    there = ids(topology.cpus)
    absent = CpuSet(guest.cpus - there)
    offline = CpuSet(cpu.id for cpu in topology.cpus if not cpu.online and cpu.id in guest.cpus)
    told = [
        f"CPU {cpus} {what}"
        for cpus, what in ((offline, "is offline"), (absent, "does not exist"))
        if cpus
    ]
    if told:
        yield Violation(
            Kind.OFFLINE,
            (guest.instance_uuid,),
            CpuSet(offline | absent),
            f"{_named(guest)} is pinned to what is not there: {', '.join(told)}",
        )


def _memory_away(guest: Occupant, topology: Topology) -> Iterator[Violation]:
    at_home = {cpu.id: cell.id for cell in topology.cells for cpu in cell.cpus}
    if guest.memory_nodes is None or not guest.cpus <= at_home.keys():
        return
    nodes = CpuSet(at_home[cpu] for cpu in guest.cpus)
    if not nodes & guest.memory_nodes:
        yield Violation(
            Kind.MEMORY_AWAY,
            (guest.instance_uuid,),
            guest.cpus,
            f"{_named(guest)}: its vCPUs are pinned to NUMA node {nodes}, its memory is bound to "
            f"node {guest.memory_nodes}",
            guest.memory_nodes,
        )


def _some(guests: Sequence[Occupant]) -> str:
    named = [_named(guest) for guest in guests[:_NAMED_MAX]]
    if len(guests) > _NAMED_MAX:
        named.append(f"{len(guests) - _NAMED_MAX} more")
    return ", ".join(named)


def _named(guest: Occupant) -> str:
    who = "placed by Kongming" if guest.touched else "Nova's" if guest.nova else "not Nova's"
    return f"instance {guest.instance_uuid} ({guest.name}, {who})"
