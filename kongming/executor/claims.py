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

"""Which CPUs are being given away just now, so that no two guests get the same.

Many instances are worked on at once: between the look at the other guests
and the pin there is a moment in which another worker may do the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
import threading

from kongming.hypervisor.occupant import Occupant


class Claims:
    """The guests that are being placed at this moment.

    :param occupants: gives the running guests of the host.
    """

    def __init__(self, occupants: Callable[[], Iterable[Occupant]]) -> None:
        self._occupants = occupants
        self._lock = threading.Lock()
        self._claimed: dict[str, Occupant] = {}

    @contextmanager
    def claim(self, mine: Occupant, check: Callable[[list[Occupant]], None]) -> Iterator[None]:
        """Claim the CPUs of ``mine`` while it is being placed.

        :param check: is given all others, those that are being placed
            included, and raises if ``mine`` may not have its CPUs.
        """
        with self._lock:
            others = {other.instance_uuid: other for other in self._occupants()} | self._claimed
            others.pop(mine.instance_uuid, None)
            check(list(others.values()))
            self._claimed[mine.instance_uuid] = mine
        try:
            yield
        finally:
            with self._lock:
                self._claimed.pop(mine.instance_uuid, None)
