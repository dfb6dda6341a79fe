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

"""What is known of an instance, and its history: values, and how they are kept."""

from __future__ import annotations

from dataclasses import dataclass
import enum
import json
from typing import Any

from kongming.allocation import Allocation
from kongming.executor.request import Source


class Status(enum.StrEnum):
    """How far what was asked has come.

    RELEASED is only found in the history: nothing is kept any more.
    """

    PENDING = "pending"
    APPLIED = "applied"
    DRIFTED = "drifted"
    REFUSED = "refused"
    FAILED = "failed"
    ABSENT = "absent"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Record:
    """All that is known of one instance.

    :ivar asked: what is asked; None if it can't be read.
    :ivar accepted: what last was in force on the guest; None if nothing was.
    :ivar generation: grows with each change of ``asked``.
    :ivar reason: reason code of a refusal, failure or drift; empty otherwise.
    :ivar changed_at: when the status changed, in seconds since the epoch.
    :ivar source: whose request this is.
    :ivar drift: what was last found to be other than wanted; empty if never.
    :ivar drift_at: when, in seconds since the epoch.
    """

    instance_uuid: str
    asked: Allocation | None
    accepted: Allocation | None
    generation: int
    status: Status
    reason: str
    message: str
    changed_at: float
    source: Source
    drift: str
    drift_at: float | None


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of an instance's history: what was asked, and what came of it.

    Times are in seconds since the epoch.
    """

    asked_at: float | None
    source: Source
    asked_by: str
    asked: Allocation | None
    status: Status
    reason: str
    message: str
    changed_at: float


def dump(allocation: Allocation) -> str:
    return json.dumps(allocation.to_json(), sort_keys=True)


def load(text: str | None) -> Allocation | None:
    return None if text is None else Allocation.from_json(json.loads(text))


def read_record(
    instance_uuid: str, asked: str | None, accepted: str | None, generation: int, *rest: Any
) -> Record:
    status, reason, message, changed_at, source, drift, drift_at = rest
    return Record(
        instance_uuid,
        load(asked),
        load(accepted),
        generation,
        Status(status),
        reason,
        message,
        changed_at,
        Source(source),
        drift,
        drift_at,
    )
