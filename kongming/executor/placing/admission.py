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
"""Whether a guest may have CPUs of other guests, because these are about to move away.

Requests that are made together, by an allocation map or at the edge of time windows, are judged
by what all guests will have. Otherwise two guests that swap, or a whole chain, would refuse each
other forever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
import functools

from kongming.allocation.cpuset import CpuSet
from kongming.host.occupant import Occupant

# Guests of one chain.
_CHAIN_MAX = 200


@dataclass(frozen=True, slots=True)
class Move:
    """What a guest will have.

    :ivar cpus: all requested host CPUs, of any threads.
    :ivar pins: the host CPUs of each vCPU that will be pinned.
    """

    instance_uuid: str
    cpus: CpuSet
    pins: Mapping[int, CpuSet]

    @property
    def pinned(self) -> CpuSet:
        """All host CPUs that a vCPU will be pinned to."""
        return CpuSet.union(self.pins.values())


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a move is possible.

    :ivar in_the_way: the other guests that have, or will have, some of the CPUs, with these CPUs.
    :ivar moving: the instances that have to move as well; empty if any guest is in the way.
    """

    in_the_way: tuple[tuple[Occupant, CpuSet], ...]
    moving: frozenset[str] = frozenset()


#: Returns on which CPUs other guests are in the way of a guest that will have the given CPUs.
Contested = Callable[[CpuSet], CpuSet]
#: Judges a given move by the contested CPUs.
Judge = Callable[[Contested], Verdict]


def judge(
    move: Move,
    occupants: Iterable[Occupant],
    moves: Callable[[str], Move | None],
    contested: Contested = lambda cpus: cpus,
) -> Verdict:
    """Judge a move by what all other guests will have.

    :param occupants: the guests of the host as they are.
    :param moves: returns what an instance will have if it is about to move, and only other
        guests may prevent that; None if it stays.
    :param contested: by default the CPUs themselves.
    """
    judgement = _Judgement(occupants, moves, contested)
    in_the_way = judgement.in_the_way(move)
    moving = frozenset() if in_the_way else judgement.moving.keys() - {move.instance_uuid}
    return Verdict(tuple(in_the_way), frozenset(moving))


class _Judgement:
    """:ivar moving: the moves that will be made, by instance."""

    def __init__(
        self,
        occupants: Iterable[Occupant],
        moves: Callable[[str], Move | None],
        contested: Contested,
    ) -> None:
        self._occupants = list(occupants)
        # Planning a move is expensive: each is planned once.
        self._moves = functools.cache(moves)
        self._contested = contested
        self.moving: dict[str, Move] = {}

    def in_the_way(self, move: Move) -> list[tuple[Occupant, CpuSet]]:
        """Return the guests that prevent a move, and add it to the moves that will be made."""
        self.moving[move.instance_uuid] = move
        cpus = self._contested(move.cpus)
        found = []
        for other in self._occupants:
            if other.instance_uuid == move.instance_uuid:
                continue
            known = self.moving.get(other.instance_uuid)
            shared = cpus & (other.cpus if known is None else known.pinned)
            if not shared:
                continue
            moving = self._with(other.instance_uuid) if known is None else None
            if moving is None:
                found.append((other, shared))
            else:
                self.moving = moving
        return found

    def _with(self, instance_uuid: str) -> dict[str, Move] | None:
        """Return the moves including another guest's, and those of all guests that move for it.

        Which guests have to move leaves no choice, so one walk over them is enough: if one of
        them can't move, none does.

        :returns: None if the guest stays.
        """
        moving = dict(self.moving)
        cpus = {each: self._contested(move.cpus) for each, move in moving.items()}
        waiting = [instance_uuid]
        while waiting:
            current = waiting.pop()
            if current in moving:
                continue
            its_move = self._moves(current) if len(moving) < _CHAIN_MAX else None
            if its_move is None or any(map(its_move.pinned.__and__, cpus.values())):
                return None
            moving[current], cpus[current] = its_move, self._contested(its_move.cpus)
            for other in self._occupants:
                known = moving.get(other.instance_uuid)
                if not cpus[current] & (other.cpus if known is None else known.pinned):
                    continue
                if known is None:
                    waiting.append(other.instance_uuid)
                elif known is not its_move:
                    return None
        return moving
