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

"""How outcomes of a pass are worded, and how refusals are logged."""

from __future__ import annotations

from collections.abc import Sequence
import logging

from kongming import exception
from kongming.allocation.stored import Unreadable
from kongming.executor.placing.placer import Placed
from kongming.hypervisor.host import Host

LOG = logging.getLogger(__name__)


def unreadable(instance_uuid: str, stored: Unreadable) -> exception.StoredInvalid:
    """Return the refusal for a stored request that can't be read."""
    return exception.StoredInvalid(
        f"the stored request can't be read ({stored.why}): request it again, or delete it by "
        f"'kongming-manage allocation unset {instance_uuid}'"
    )


def unusable(done: Placed, host: Host) -> exception.Drifted | None:
    """Return the drift if CPUs went offline or were removed from the guest's control groups."""
    lacking = done.plan.unusable
    if not lacking:
        return None
    waiting = f"{done.plan.describe_unusable()}; set again when they are back"
    if any(cpus - host.online for cpus in lacking.values()):
        return exception.CpuWentOffline(f"CPUs went offline: {waiting}")
    groups = ", ".join(group for group, _cpus in host.barred)
    return exception.SliceNarrowed(f"the control group {groups} lacks {waiting}")


def combine(shortfalls: Sequence[exception.Refused]) -> exception.Refused:
    """Return one refusal for several, with the reason code of the first."""
    return type(shortfalls[0])("; ".join(map(str, shortfalls)))


def log_refusal(
    instance_uuid: str, refusal: exception.Refused, effect: str = "the guest stays as it is"
) -> None:
    """Log a refusal, always in the same form.

    :param effect: what the guest has nevertheless.
    """
    LOG.warning(
        "Instance %s: refused (%s): %s; %s", instance_uuid, refusal.reason, refusal, effect
    )
