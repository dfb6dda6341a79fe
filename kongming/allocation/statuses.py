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

"""The statuses of requests, and what they mean, for all that write, carry or show them."""

from __future__ import annotations

import enum


class Status(enum.StrEnum):
    """The outcome of the last pass, if there was one.

    ELSEWHERE is APPLIED, though Nova reports that the guest is on another host. RELEASING is an
    allocation that was deleted, while its host has not yet released the guest. RELEASED and GONE
    (Nova has deleted the server) are in histories only.
    """

    RELEASING = "releasing"
    PENDING = "pending"
    APPLIED = "applied"
    ELSEWHERE = "elsewhere"
    DRIFTED = "drifted"
    REFUSED = "refused"
    FAILED = "failed"
    ABSENT = "absent"
    RELEASED = "released"
    GONE = "gone"

    @classmethod
    def of(cls, text: str) -> Status:
        """Return the status of a text; PENDING for the unknown status of another version."""
        return cls(text) if text in cls._value2member_map_ else cls.PENDING

    @property
    def is_settled(self) -> bool:
        """Whether a pass has ended with it; otherwise one will follow."""
        return self not in (Status.RELEASING, Status.PENDING)

    @property
    def is_in_force(self) -> bool:
        """Whether the whole request is in force."""
        return self in (Status.APPLIED, Status.ELSEWHERE)

    @property
    def is_failure(self) -> bool:
        """Whether the request was refused, or could not be carried out."""
        return self in (Status.REFUSED, Status.FAILED)

    @property
    def is_reported(self) -> bool:
        """Whether hosts store and report it."""
        return self not in (Status.RELEASING, Status.GONE)

    @property
    def is_listed(self) -> bool:
        """Whether an allocation of the API can have it."""
        return self not in (Status.RELEASED, Status.GONE)


REPORTED = tuple(each.value for each in Status if each.is_reported)
LISTED = tuple(each.value for each in Status if each.is_listed)
