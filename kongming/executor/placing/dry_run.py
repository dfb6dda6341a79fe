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

"""The dry run: what would be changed on a guest, without changing it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kongming.allocation.allocation import Allocation
from kongming.executor.placing.placer import Placer
from kongming.hypervisor.guest import Guest


@dataclass(frozen=True, slots=True)
class Step:
    """One change; all values are texts for display.

    :ivar granted: what Nova gave a guest with a NUMA topology there; empty if it has none.
    """

    target: str
    former: str
    desired: str
    granted: str = ""


@dataclass(frozen=True, slots=True)
class DryRun:
    """What would be changed now.

    :ivar warnings: what would be changed nevertheless.
    """

    steps: tuple[Step, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "steps": [
                {
                    "target": step.target,
                    "from": step.former,
                    "to": step.desired,
                    "grant": step.granted,
                }
                for step in self.steps
            ],
            "warnings": list(self.warnings),
        }


def run(
    placer: Placer,
    guest: Guest,
    instance_uuid: str,
    allocation: Allocation,
    *,
    accepted: bool = False,
) -> DryRun:
    """Return what would be changed on a guest.

    :param accepted: whether this allocation was in force before.
    :raises Refused: if it would be refused, now or when a window begins.
    """
    if not accepted:
        placer.check_windows(allocation, guest)
    prospect = placer.plan(allocation.at(datetime.now(UTC)), guest, accepted=accepted)
    warnings = placer.warnings(instance_uuid, prospect)
    if prospect.plan.unusable:
        warnings.append(f"not available now, set later: {prospect.plan.describe_unusable()}")
    warnings += map(str, prospect.shortfalls)
    grant = prospect.grant
    steps = (
        Step(
            str(change.target),
            str(change.former),
            str(change.desired),
            "" if grant is None else str(grant.of(change.target)),
        )
        for change in prospect.plan.changes()
    )
    return DryRun(tuple(steps), tuple(warnings))
