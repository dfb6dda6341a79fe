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
"""Whether a guest may have CPUs that others have now, because these are to move away.

What is asked together, by an allocation map or at the edge of time windows, is judged by
what all will have: two guests that swap, or a whole chain, would refuse each other for
ever otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
import functools

from kongming.allocation.cpuset import CpuSet
from kongming.host.occupant import Occupant

# One after another, as each waits for the next.
_CHAIN_MAX = 200


@dataclass(frozen=True, slots=True)
class Move:
    """What a guest is to have.

    :ivar cpus: all host CPUs that are asked for, for whichever threads.
    :ivar pins: the host CPUs of each of its vCPUs that is pinned then.
    """

    instance_uuid: str
    cpus: CpuSet
    pins: Mapping[int, CpuSet]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of it.

    :ivar in_the_way: the other guests that have, or will have, some of the CPUs, and these.
    :ivar moving: the instances that have to move as well; empty if any is in the way.
    """

    in_the_way: tuple[tuple[Occupant, CpuSet], ...]
    moving: frozenset[str] = frozenset()


#: Returns on which CPUs other guests are in the way of one that is to have some.
Contested = Callable[[CpuSet], CpuSet]
#: Judges a move that is known, by what is contested.
Judge = Callable[[Contested], Verdict]


def judge(
    move: Move,
    occupants: Iterable[Occupant],
    moves: Callable[[str], Move | None],
    contested: Contested = lambda cpus: cpus,
) -> Verdict:
    """Judge a move by what all others will have.

    :param occupants: the guests of the host as they are.
    :param moves: returns what an instance is to have, if that is something else than it
        has and nothing but other guests stands against it; None if it stays.
    :param contested: by default the CPUs themselves.
    """
    judgement = _Judgement(occupants, moves, contested)
    in_the_way = judgement.in_the_way(move)
    moving = frozenset() if in_the_way else judgement.moving.keys() - {move.instance_uuid}
    return Verdict(tuple(in_the_way), frozenset(moving))


class _Judgement:
    """:ivar moving: the moves that are known to be made, by instance."""

    def __init__(
        self,
        occupants: Iterable[Occupant],
        moves: Callable[[str], Move | None],
        contested: Contested,
    ) -> None:
        self._occupants = list(occupants)
        # To find out what one is to have takes time: each is asked for once.
        self._moves = functools.cache(moves)
        self._contested = contested
        self.moving: dict[str, Move] = {}

    def in_the_way(self, move: Move) -> list[tuple[Occupant, CpuSet]]:
        """Return who keeps a move from being made; note it as being made."""
        self.moving[move.instance_uuid] = move
        cpus = self._contested(move.cpus)
        found = []
        for other in self._occupants:
            if other.instance_uuid == move.instance_uuid:
                continue
            known = self.moving.get(other.instance_uuid)
            shared = _shared(cpus, other.pins if known is None else known.pins)
            if not shared:
                continue
            together = self._with(other.instance_uuid) if known is None else None
            if together is None:
                found.append((other, shared))
            else:
                self.moving = together
        return found

    def _with(self, instance_uuid: str) -> dict[str, Move] | None:
        """Return the moves with that of another guest, and of all that move for it.

        Who has to move for whom leaves no choice, so one walk over them is enough: as soon as
        one of them can't, none of them does.

        :returns: None if it does not give way.
        """
        together = dict(self.moving)
        cpus = {each: self._contested(move.cpus) for each, move in together.items()}
        waiting = [instance_uuid]
        while waiting:
            current = waiting.pop()
            if current in together:
                continue
            away = self._moves(current) if len(together) < _CHAIN_MAX else None
            if away is None or any(_shared(others, away.pins) for others in cpus.values()):
                return None
            together[current], cpus[current] = away, self._contested(away.cpus)
            for other in self._occupants:
                known = together.get(other.instance_uuid)
                if not _shared(cpus[current], other.pins if known is None else known.pins):
                    continue
                if known is None:
                    waiting.append(other.instance_uuid)
                elif known is not away:
                    return None
        return together


def _shared(cpus: CpuSet, pins: Mapping[int, CpuSet]) -> CpuSet:
    return CpuSet.union(pins.values()) & cpus
