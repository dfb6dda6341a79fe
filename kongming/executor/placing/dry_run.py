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

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kongming import exception
from kongming.allocation.allocation import Allocation
from kongming.executor.placing.placer import Placer, Prospect
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
    prospect = _plan(placer, guest, allocation, accepted=accepted)
    return _describe(prospect, placer.warnings(instance_uuid, prospect))


def run_all(
    placer: Placer,
    guest_of: Callable[[str], AbstractContextManager[Guest]],
    requested: Mapping[str, Allocation],
) -> dict[str, DryRun | exception.KongmingError]:
    """Return what would be changed on several guests that are requested together.

    They are judged one after the other, in the order of the request, by what the others will have:
    guests may swap their CPUs, and of two that request the same CPU the second one is in the way.

    :param guest_of: opens the guest of an instance.
    :param requested: by instance; an empty allocation is its release.
    :returns: by instance, the changes or why there would be none.
    :raises HypervisorUnavailable: if libvirt is unavailable.
    """
    prospects: dict[str, Prospect] = {}
    outcomes: dict[str, DryRun | exception.KongmingError] = {}
    for uuid, allocation in requested.items():
        try:
            with guest_of(uuid) as guest:
                prospects[uuid] = _plan(placer, guest, allocation, accepted=not allocation)
        except exception.HypervisorUnavailable:
            raise
        except exception.KongmingError as error:
            outcomes[uuid] = error
    foreseeing = placer.foresee(prospects, outcomes.keys())
    with ExitStack() as claims:
        for uuid, prospect in prospects.items():
            try:
                warnings = claims.enter_context(foreseeing.claimed(uuid, prospect))
                outcomes[uuid] = _describe(prospect, warnings)
            except exception.Refused as refusal:
                outcomes[uuid] = refusal
    return {uuid: outcomes[uuid] for uuid in requested}


def _plan(placer: Placer, guest: Guest, allocation: Allocation, *, accepted: bool) -> Prospect:
    if not accepted:
        placer.check_windows(allocation, guest)
    return placer.plan(allocation.at(datetime.now(UTC)), guest, accepted=accepted)


def _describe(prospect: Prospect, warnings: list[str]) -> DryRun:
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
