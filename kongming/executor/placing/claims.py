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

from collections.abc import Callable, Iterable, Iterator
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
    """

    def __init__(
        self,
        occupants: Callable[[], Iterable[Occupant]],
        moves: Callable[[Occupant], Move | None] = lambda _other: None,
    ) -> None:
        self._occupants = occupants
        self._moves = moves
        self._lock = threading.Lock()
        self._claimed: dict[str, Occupant] = {}

    @contextmanager
    def claim(self, move: Move, check: Callable[[Judge], _Found]) -> Iterator[_Found]:
        """Claim what an instance will have while it is being placed.

        :param check: finds the guests that are in the way, including those that are being placed,
            and raises if the instance may not have its CPUs; its result is passed on.
        """
        claim = Occupant(move.instance_uuid, "being placed now", pins=move.pins)
        with self._lock:
            there = {each.instance_uuid: each for each in self._occupants()} | self._claimed
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
