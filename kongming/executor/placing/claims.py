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

"""Which CPUs are being assigned now, so that no two guests get the same.

Many instances are processed at once: between reading the other guests and pinning, another worker
may do the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
import threading
from typing import TypeVar

from kongming.executor.placing.admission import Judge, Move, judge
from kongming.host.occupant import Occupant

_Found = TypeVar("_Found")


class Claims:
    """The guests that are being placed at this moment.

    :param occupants: returns the running guests of the host.
    :param moves: returns what a guest will have, if it is about to move; see
        :func:`kongming.executor.placing.admission.judge`.
    :param label: the name of a guest that has claimed its CPUs, for messages.
    """

    def __init__(
        self,
        occupants: Callable[[], Iterable[Occupant]],
        moves: Callable[[Occupant], Move | None] = lambda _other: None,
        label: str = "being placed now",
    ) -> None:
        self._occupants = occupants
        self._moves = moves
        self._label = label
        self._lock = threading.Lock()
        self._claimed: dict[str, Occupant] = {}
        self._foreseen: dict[str, Move | None] = {}

    @contextmanager
    def claim(self, move: Move, check: Callable[[Judge], _Found]) -> Iterator[_Found]:
        """Claim what an instance will have while it is being placed.

        :param check: finds the guests that are in the way, including those that are being placed,
            and raises if the instance may not have its CPUs; its result is passed on.
        """
        claim = Occupant(move.instance_uuid, self._label, pins=move.pins)
        with self._lock:
            there = self._there()
            # A guest that is being placed does not move again meanwhile.
            found = check(
                lambda contested: judge(
                    move,
                    there.values(),
                    lambda uuid: None if uuid in self._claimed else self._moves(there[uuid]),
                    contested,
                )
            )
            self._claimed[move.instance_uuid] = claim
        try:
            yield found
        finally:
            with self._lock:
                self._claimed.pop(move.instance_uuid, None)

    def foresee(self, moves: Mapping[str, Move | None]) -> Claims:
        """Return claims for the dry run of a request for several instances, separate from these.

        :param moves: by instance, what it will have; None if it stays as it is.
        """
        with self._lock:
            there = list(self._there().values())
            known: dict[str, Move | None] = dict.fromkeys(self._claimed) | dict(moves)

        def move_of(other: Occupant) -> Move | None:
            if other.instance_uuid not in known:
                known[other.instance_uuid] = self._moves(other)
            return known[other.instance_uuid]

        foreseeing = Claims(lambda: there, move_of, "in the same request")
        foreseeing._foreseen = known
        return foreseeing

    def expect(self, instance_uuids: Iterable[str]) -> None:
        """Claim for foreseen instances what they will have: they were judged with another one.

        Judging a chain of guests again for each of them would take long.
        """
        with self._lock:
            for each in instance_uuids:
                if (move := self._foreseen.get(each)) is not None:
                    self._claimed[each] = Occupant(each, self._label, pins=move.pins)

    def _there(self) -> dict[str, Occupant]:
        return {each.instance_uuid: each for each in self._occupants()} | self._claimed
