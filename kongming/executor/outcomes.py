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

"""How the outcomes of a pass are worded, and a refusal is told."""

from __future__ import annotations

from collections.abc import Sequence
import logging

from kongming import exception
from kongming.allocation.stored import Unreadable
from kongming.executor.placing.placer import Placed
from kongming.hypervisor.host import Host

LOG = logging.getLogger(__name__)


def not_understood(instance_uuid: str, kept: Unreadable) -> exception.StoredInvalid:
    """Return the refusal of what is stored of an instance and can't be read."""
    return exception.StoredInvalid(
        f"the stored request can't be read ({kept.why}): request it again, or delete it by "
        f"'kongming-manage allocation unset {instance_uuid}'"
    )


def unusable(done: Placed, host: Host) -> exception.Drifted | None:
    """Return what the guest can't have now: its CPUs are offline, or were taken from it."""
    lacking = done.plan.unusable
    if not lacking:
        return None
    waiting = f"{done.plan.describe_unusable()}; set again when they are back"
    if any(cpus - host.online for cpus in lacking.values()):
        return exception.CpuWentOffline(f"CPUs went offline: {waiting}")
    groups = ", ".join(group for group, _cpus in host.barred)
    return exception.SliceNarrowed(f"the control group {groups} lacks {waiting}")


def partly(shortfalls: Sequence[exception.Refused]) -> exception.Refused:
    """Return one refusal for all of what can't be had, with the reason of the first."""
    return type(shortfalls[0])("; ".join(map(str, shortfalls)))


def log_refusal(
    instance_uuid: str, refusal: exception.Refused, left: str = "the guest stays as it is"
) -> None:
    """Tell the operator of a refusal: said once, in one form, wherever it is found.

    :param left: what the guest has in spite of it.
    """
    LOG.warning("Instance %s: refused (%s): %s; %s", instance_uuid, refusal.reason, refusal, left)
