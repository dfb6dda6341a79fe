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
"""Guests that can't be placed now, or do not keep their placement."""

from __future__ import annotations

from datetime import UTC, datetime

from kongming.exception.base import Failed, KongmingError


class Drifted(KongmingError):
    """The guest does not have its desired allocation, and can't have it now."""

    reason = "drifted"


class Repinned(Drifted):
    """Another program has changed the guest; it was corrected."""

    reason = "repinned"


class CpuWentOffline(Drifted):
    """A requested CPU went offline; it is pinned again when it is online."""

    reason = "cpu_went_offline"


class SliceNarrowed(Drifted):
    """A control group above the guest's has lost a CPU of the guest's allocation."""

    reason = "cpu_not_in_slice"


class StepFailed(Failed):
    """libvirt refused a step; the steps before it were undone."""

    reason = "step_failed"


class NotVerified(Failed):
    """libvirt accepted every step, but the threads run elsewhere."""

    reason = "not_verified"


class GuestHung(Failed):
    """A call about the guest does not return."""

    reason = "guest_hung"

    @classmethod
    def since(cls, what: str, moment: float) -> GuestHung:
        """Return the error of a call that hangs.

        :param what: the call, as a sentence begins with it.
        :param moment: when the call began, in seconds since the epoch.
        """
        written = datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return cls(f"{what} since {written}: check the guest's storage and QEMU's log")


class GuestBusy(KongmingError):
    """A job of libvirt blocks the guest; it is placed when the job has ended."""

    reason = "guest_busy"


class GuestAbsent(KongmingError):
    """The instance has no running domain."""

    reason = "guest_absent"


class DomainOff(GuestAbsent):
    """The domain is defined, but does not run."""


class DomainGone(GuestAbsent):
    """The domain does not exist.

    :ivar migrated: whether libvirt has migrated it to another host.
    """

    def __init__(self, message: str, *, migrated: bool = False) -> None:
        super().__init__(message)
        self.migrated = migrated


class ClaimedElsewhere(KongmingError):
    """The guest runs here, though Nova has the instance elsewhere."""

    reason = "claimed_elsewhere"
