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
    """The guest does not have what is wanted, and can't have it now."""

    reason = "drifted"


class Repinned(Drifted):
    """Somebody else has changed the guest; it was corrected."""

    reason = "repinned"


class CpuWentOffline(Drifted):
    """A CPU that is wanted went offline: it is pinned again when it is back."""

    reason = "cpu_went_offline"


class SliceNarrowed(Drifted):
    """A control group above the guest's was taken a CPU that the guest was given."""

    reason = "cpu_not_in_slice"


class StepFailed(Failed):
    """libvirt refused a step; the steps before it were undone."""

    reason = "step_failed"


class NotVerified(Failed):
    """libvirt agreed to every step, but the threads run elsewhere."""

    reason = "not_verified"


class GuestHung(Failed):
    """A call that concerns the guest does not return."""

    reason = "guest_hung"

    @classmethod
    def since(cls, what: str, moment: float) -> GuestHung:
        """Make the error.

        :param what: what hangs, as a sentence begins with it.
        :param moment: since when, in seconds since the epoch.
        """
        written = datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return cls(f"{what} since {written}: check the guest's storage and QEMU's log")


class GuestBusy(KongmingError):
    """A job of libvirt's keeps the guest; it is placed when that has ended."""

    reason = "guest_busy"


class GuestAbsent(KongmingError):
    """There is no running domain to work on now."""

    reason = "guest_absent"


class DomainOff(GuestAbsent):
    """The domain is defined, and does not run."""


class DomainGone(GuestAbsent):
    """There is no domain at all.

    :ivar migrated: whether libvirt has migrated it to another host.
    """

    def __init__(self, message: str, *, migrated: bool = False) -> None:
        super().__init__(message)
        self.migrated = migrated


class ClaimedElsewhere(KongmingError):
    """The guest runs here, though Nova says that the instance is not on this host."""

    reason = "claimed_elsewhere"
