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

"""The statuses of a request, in one place for all that write, carry or show them."""

from __future__ import annotations

import enum


class Status(enum.StrEnum):
    """How far a request has come.

    ELSEWHERE is in force like APPLIED, though Nova says that the guest is on another host.
    RELEASING is never reported: it is an allocation that was deleted and that the host has not
    yet let go of. RELEASED is only found in reports and in the history, where nothing is kept
    any more; GONE (the server was deleted in Nova) likewise, and never on a host.
    """

    PENDING = "pending"
    APPLIED = "applied"
    ELSEWHERE = "elsewhere"
    DRIFTED = "drifted"
    REFUSED = "refused"
    FAILED = "failed"
    ABSENT = "absent"
    RELEASING = "releasing"
    RELEASED = "released"
    GONE = "gone"

    @classmethod
    def of(cls, text: str) -> Status:
        """Return the status of a text; PENDING for the unknown status of another version."""
        return cls(text) if text in cls._value2member_map_ else cls.PENDING

    @property
    def is_settled(self) -> bool:
        """Whether the host has finished with the request, whatever the outcome."""
        return self not in (Status.PENDING, Status.RELEASING)

    @property
    def is_in_force(self) -> bool:
        """Whether the guest has the requested placement."""
        return self in (Status.APPLIED, Status.ELSEWHERE)

    @property
    def is_failure(self) -> bool:
        """Whether the request was refused, or could not be carried out."""
        return self in (Status.REFUSED, Status.FAILED)


#: What hosts keep and report; all but the last are of a request that is there.
REPORTED = tuple(each.value for each in Status if each not in (Status.RELEASING, Status.GONE))
#: What the API lists.
LISTED = (Status.RELEASING.value, *REPORTED[:-1])
