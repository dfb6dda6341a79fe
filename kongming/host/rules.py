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

"""The operator's rules: the ``[guard]`` options as a value.

CPUs that nova.conf reserves are read from there, not copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import enum
from typing import Any

from kongming.allocation.cpuset import CpuSet, parse_ids

_NONE = CpuSet()


class Overlap(enum.Enum):
    """What to do if other guests are pinned to the requested CPUs or their cores."""

    ALLOW = "allow"
    WARN = "warn"
    REFUSE = "refuse"


class NumaGuests(enum.Enum):
    """What to do with requests for guests that have a NUMA topology."""

    WITHIN = "within"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Rules:
    """What may be requested on this host.

    :ivar allowed_cpus: None means all.
    :ivar reserved_cpus: never, even if allowed.
    :ivar dedicated_cpus: those that nova.conf dedicates to guests that Nova pins itself.
    :ivar shared_cpus: those that nova.conf has for all other guests, and for emulators.
    :ivar allowed_nodes: NUMA nodes for memory; None means all.
    :ivar allowed_projects: ids of the projects that may make requests; empty means all.
    :ivar overlap: what to do about guests on the same CPUs.
    :ivar smt: what to do about guests on other CPUs of the same cores.
    :ivar numa_guests: what to do with requests for guests that have a NUMA topology.
    :ivar numa_across_cells: whether their dedicated CPUs may be permuted across their cells.
    """

    allowed_cpus: CpuSet | None = None
    reserved_cpus: CpuSet = _NONE
    dedicated_cpus: CpuSet = _NONE
    shared_cpus: CpuSet = _NONE
    allowed_nodes: CpuSet | None = None
    allowed_projects: frozenset[str] = frozenset()
    overlap: Overlap = Overlap.WARN
    smt: Overlap = Overlap.WARN
    numa_guests: NumaGuests = NumaGuests.WITHIN
    numa_across_cells: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON: cpusets in their written form, null where all are allowed."""
        return {
            "allowed_cpus": None if self.allowed_cpus is None else str(self.allowed_cpus),
            "reserved_cpus": str(self.reserved_cpus),
            "dedicated_cpus": str(self.dedicated_cpus),
            "shared_cpus": str(self.shared_cpus),
            "allowed_nodes": None if self.allowed_nodes is None else str(self.allowed_nodes),
            "allowed_projects": sorted(self.allowed_projects),
            "overlap": self.overlap.value,
            "smt": self.smt.value,
            "numa_guests": self.numa_guests.value,
            "numa_across_cells": self.numa_across_cells,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Rules:
        """Read what :meth:`to_json` returns."""
        return cls(
            allowed_cpus=_optional(value["allowed_cpus"]),
            reserved_cpus=parse_ids(value["reserved_cpus"]),
            dedicated_cpus=parse_ids(value["dedicated_cpus"]),
            shared_cpus=parse_ids(value.get("shared_cpus", "")),
            allowed_nodes=_optional(value["allowed_nodes"]),
            allowed_projects=frozenset(value["allowed_projects"]),
            overlap=Overlap(value["overlap"]),
            # Older hosts do not have it.
            smt=Overlap(value.get("smt", Overlap.ALLOW.value)),
            numa_guests=NumaGuests(value.get("numa_guests", NumaGuests.REFUSE.value)),
            numa_across_cells=value.get("numa_across_cells", False),
        )


def _optional(text: str | None) -> CpuSet | None:
    return None if text is None else parse_ids(text)
