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

"""An occupant of the host: a running domain, Nova's or another's, and its pins. A value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kongming.allocation.cpuset import CpuSet, parse_ids
from kongming.host.grant import Grant


@dataclass(frozen=True, slots=True)
class Occupant:
    """A running domain, as far as it concerns others.

    :ivar name: libvirt's name of the domain.
    :ivar project_id: of its owner, if Nova created it.
    :ivar pins: the host CPUs of each pinned vCPU; it leaves out vCPUs that are not pinned, or
        pinned to all CPUs.
    :ivar cpuset: where vCPUs that are not pinned may run; None means anywhere.
    :ivar memory_nodes: the NUMA nodes that its memory is bound to; None if it is not bound.
    :ivar touched: whether Kongming has changed it, so that it has a baseline.
    :ivar touched_by: the store that wrote the baseline; empty if it names none. It has no
        meaning elsewhere, and is not in the JSON form.
    :ivar grant: what Nova gave it, if it has a NUMA topology. ``pins`` also leaves out vCPUs
        that have all of several CPUs that Nova gave them.
    :ivar cpus: all host CPUs that a vCPU is pinned to.
    """

    instance_uuid: str
    name: str
    project_id: str | None = None
    nova: bool = True
    pins: Mapping[int, CpuSet] = field(default_factory=dict)
    cpuset: CpuSet | None = None
    memory_nodes: CpuSet | None = None
    touched: bool = False
    touched_by: str = ""
    grant: Grant | None = None
    # Each guest that is placed is compared with all others.
    cpus: CpuSet = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cpus", CpuSet.union(self.pins.values()))

    @property
    def floating(self) -> bool:
        """Whether no vCPU is pinned."""
        return not self.pins

    def to_json(self) -> dict[str, Any]:
        return {
            "instance_uuid": self.instance_uuid,
            "name": self.name,
            "project_id": self.project_id,
            "nova": self.nova,
            "pins": {str(vcpu): str(cpus) for vcpu, cpus in self.pins.items()},
            "cpuset": None if self.cpuset is None else str(self.cpuset),
            "memory_nodes": None if self.memory_nodes is None else str(self.memory_nodes),
            "has_baseline": self.touched,
            "grant": None if self.grant is None else self.grant.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Occupant:
        """Read what :meth:`to_json` returns."""
        return cls(
            instance_uuid=value["instance_uuid"],
            name=value["name"],
            project_id=value["project_id"],
            nova=value["nova"],
            pins={int(vcpu): parse_ids(cpus) for vcpu, cpus in value["pins"].items() if cpus},
            cpuset=_optional(value["cpuset"]),
            memory_nodes=_optional(value["memory_nodes"]),
            touched=value["has_baseline"],
            grant=None if value.get("grant") is None else Grant.from_json(value["grant"]),
        )


def _optional(text: str | None) -> CpuSet | None:
    return None if text is None else parse_ids(text)
