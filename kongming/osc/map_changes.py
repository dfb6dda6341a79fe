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
"""The changes that applying a map makes, and whether they need a confirmation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kongming.client.progress import Json, allocations_of, is_same

# The number of releases that needs a confirmation, unless more instances stay: a filter that
# found too little looks like that.
MANY = 10


@dataclass(frozen=True, slots=True)
class MapChanges:
    """The changes that applying a map makes to its instances.

    :ivar before: the present allocations of the map, by UUID; None for one that can't be read.
    :ivar after: the requested allocations, by UUID.
    """

    before: Mapping[str, Any]
    after: Mapping[str, Any]

    @property
    def added(self) -> list[str]:
        """The instances that are new in the map."""
        return sorted(self.after.keys() - self.before.keys())

    @property
    def released(self) -> list[str]:
        """The instances that return to their baseline."""
        return sorted(self.before.keys() - self.after.keys())

    @property
    def changed(self) -> list[str]:
        """The instances that get another allocation."""
        return sorted(self._common - set(self.unchanged))

    @property
    def unchanged(self) -> list[str]:
        """The instances that keep their allocation."""
        return sorted(
            uuid for uuid in self._common if is_same(self.before[uuid], self.after[uuid])
        )

    @property
    def empties(self) -> bool:
        """Whether all instances are released, and the map has no others."""
        return bool(self.before) and not self.after

    @property
    def releases_most(self) -> bool:
        """Whether many instances are released, and more than stay."""
        number = len(self.released)
        return number >= MANY and number > len(self._common)

    @property
    def _common(self) -> set[str]:
        return set(self.before.keys() & self.after.keys())


def of(current: Json | None, requested: Mapping[str, Any]) -> MapChanges:
    """Compare a map of the API with a request.

    :param current: None if the map does not exist.
    """
    return MapChanges({} if current is None else allocations_of(current), requested)
