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
"""What applying a map would change, and which of it harms too many to be done unasked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kongming.allocation.statuses import Status
from kongming.osc.progress import Told, is_same

# So many are released only if more stay, or if that is allowed: a filter that found too little
# looks like that.
MANY = 10


@dataclass(frozen=True, slots=True)
class MapChanges:
    """The instances of a map, by what applying it does to them.

    :ivar before: the allocations of the map now, by UUID; None for one that can't be read.
    :ivar after: the requested ones.
    """

    before: Mapping[str, Any]
    after: Mapping[str, Any]

    @property
    def added(self) -> list[str]:
        """Those that the map does not have."""
        return sorted(self.after.keys() - self.before.keys())

    @property
    def released(self) -> list[str]:
        """Those that go back to their baseline."""
        return sorted(self.before.keys() - self.after.keys())

    @property
    def changed(self) -> list[str]:
        """Those that get another allocation."""
        return sorted(self._kept - set(self.unchanged))

    @property
    def unchanged(self) -> list[str]:
        """Those that are left in peace."""
        return sorted(uuid for uuid in self._kept if is_same(self.before[uuid], self.after[uuid]))

    @property
    def empties(self) -> bool:
        """Whether all are released, and nothing comes instead."""
        return bool(self.before) and not self.after

    @property
    def releases_most(self) -> bool:
        """Whether many are released, and more than stay."""
        number = len(self.released)
        return number >= MANY and number > len(self._kept)

    @property
    def _kept(self) -> set[str]:
        return set(self.before.keys() & self.after.keys())


def of(told: Told | None, asked: Mapping[str, Any]) -> MapChanges:
    """Compare a map as the API shows it, None if there is none, with a request."""
    found = {} if told is None else told["allocations"]
    before = {
        each["instance_uuid"]: each.get("allocation")
        for each in found
        if each["status"] != Status.RELEASING.value
    }
    return MapChanges(before, asked)
