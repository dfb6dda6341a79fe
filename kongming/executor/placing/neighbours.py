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

"""Other guests that share CPUs, or cores, with a guest: what the rules say about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from kongming import exception
from kongming.allocation.cpuset import CpuSet, listed
from kongming.executor.placing.admission import Judge, Move
from kongming.host.occupant import Occupant
from kongming.host.rules import Overlap, Rules


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The other guests, as far as the rules allow them.

    :ivar warnings: for the operator.
    :ivar moving: the instances that have to move as well.
    """

    warnings: tuple[str, ...] = ()
    moving: frozenset[str] = frozenset()


def check(move: Move, rules: Rules, cores: Mapping[int, CpuSet], judge: Judge) -> Neighbours:
    """Find the guests on the CPUs of a move, and on the other CPUs of their cores.

    :param cores: the CPUs of each CPU's core.
    :raises Overlap: if the rules forbid guests to share CPUs.
    :raises SmtSibling: if they forbid guests to share cores.
    """
    warnings: list[str] = []
    moving: frozenset[str] = frozenset()
    # One after the other: a guest that causes a warning only must not cause a refusal.
    for reaction in (Overlap.REFUSE, Overlap.WARN):
        contested = _Contested(cores, rules.overlap is reaction, rules.smt is reaction)
        if not (contested.same or contested.beside):
            continue
        verdict = judge(contested)
        moving |= verdict.moving
        on_cpus = _named(
            (f"CPU {listed(shared)}", other)
            for other, cpus in verdict.in_the_way
            if (shared := cpus & move.cpus)
        )
        on_cores = _named(
            (
                f"CPU {listed(shared)} beside CPU {listed(_cores(shared, cores) & move.cpus)}",
                other,
            )
            for other, cpus in verdict.in_the_way
            if (shared := cpus - move.cpus)
        )
        if reaction is Overlap.WARN:
            warnings += [f"other guests are pinned to the same CPUs: {on_cpus}"] * bool(on_cpus)
            warnings += [f"other guests are pinned to the same cores: {on_cores}"] * bool(on_cores)
        elif on_cpus:
            raise exception.Overlap(
                f"other guests are pinned to the same CPUs: {on_cpus}; request other CPUs, or set "
                "[guard] overlap to warn"
            )
        elif on_cores:
            raise exception.SmtSibling(
                f"other guests are pinned to the same cores: {on_cores}; request CPUs of other "
                "cores, or set [guard] smt to warn"
            )
    return Neighbours(tuple(warnings), moving)


@dataclass(frozen=True, slots=True)
class _Contested:
    """Where other guests are in the way: on the same CPUs, on others of their cores, or both."""

    cores: Mapping[int, CpuSet]
    same: bool
    beside: bool

    def __call__(self, cpus: CpuSet) -> CpuSet:
        beside = _cores(cpus, self.cores) - cpus if self.beside else CpuSet()
        return beside | cpus if self.same else beside


def _cores(cpus: CpuSet, cores: Mapping[int, CpuSet]) -> CpuSet:
    """Return the CPUs of the cores of some CPUs."""
    return CpuSet(chain.from_iterable(cores.get(cpu, ()) for cpu in cpus))


def _named(found: Iterable[tuple[str, Occupant]]) -> str:
    return ", ".join(
        f"{where}: instance {other.instance_uuid} ({other.name})" for where, other in found
    )
