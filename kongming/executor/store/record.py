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

"""Records of instances and entries of their history: values, and how rows hold them."""

from __future__ import annotations

from dataclasses import dataclass
import json
import time
from typing import Any

from kongming import exception
from kongming.allocation import stored
from kongming.allocation.allocation import Allocation
from kongming.allocation.request import Request, Source
from kongming.allocation.statuses import REPORTED, Status
from kongming.allocation.stored import Unreadable

_STATUSES, _SOURCES = frozenset(REPORTED), frozenset(Source)


@dataclass(frozen=True, slots=True)
class Record:
    """What the store has of one instance.

    :ivar requested: the request that takes precedence; None if it was invalid and refused.
    :ivar accepted: the allocation that last was in force on the guest; None if there was none
        since the instance last had no request.
    :ivar generation: grows with each change of ``requested``.
    :ivar reason: reason code of a refusal, failure or drift; empty otherwise.
    :ivar changed_at: when the status changed, in seconds since the epoch.
    :ivar source: the request's source; another version may have other sources.
    :ivar drift: what was last found to differ from the desired allocation; empty if never.
    :ivar drift_at: when, in seconds since the epoch.
    :ivar unobserved: what of the placement can't be observed, and why: its drift is not
        detected; empty if everything is observed.
    """

    instance_uuid: str
    requested: Allocation | Unreadable | None
    accepted: Allocation | Unreadable | None
    generation: int
    status: Status
    reason: str
    message: str
    changed_at: float
    source: str
    drift: str
    drift_at: float | None
    unobserved: str = ""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One entry of an instance's history: a request and its outcome.

    Times are in seconds since the epoch.
    """

    requested_at: float | None
    source: str
    requested_by: str
    requested: Allocation | Unreadable | None
    status: str
    reason: str
    message: str
    changed_at: float


def dump(allocation: Allocation) -> str:
    return json.dumps(allocation.to_json(), sort_keys=True)


def storable(text: str) -> str:
    """Return a text as SQLite accepts it: without lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()


def reason_and_message(error: exception.KongmingError | None) -> tuple[str, str]:
    """Return an error's reason code and message for the store; empty if there is no error."""
    return ("", "") if error is None else (error.reason, storable(str(error)))


def dump_requested(requested: Allocation | Unreadable | None) -> str | None:
    """Return the column of a request; an unreadable one keeps its text."""
    if requested is None:
        return None
    return requested.text if isinstance(requested, Unreadable) else dump(requested)


def read_record(row: tuple[Any, ...]) -> Record:
    """Read the row of an instance, whatever it contains.

    An unknown status is read as pending: the next pass determines it.
    """
    instance_uuid, requested, accepted, generation, status, reason, message, *rest = row
    changed_at, source, drift, drift_at, unobserved = rest
    return Record(
        stored.text(instance_uuid),
        stored.load(requested),
        stored.load(accepted),
        generation,
        Status(status) if status in _STATUSES else Status.PENDING,
        stored.text(reason),
        stored.text(message),
        stored.moment(changed_at, time.time()),
        _source(source),
        stored.text(drift),
        stored.maybe_moment(drift_at),
        stored.text(unobserved),
    )


def read_request(row: tuple[Any, ...]) -> Request:
    """Read the row of a request, whatever it contains."""
    source, requested, message, requested_by, requested_at, generation = row
    return Request(
        _source(source),
        _read_requested(requested, message),
        stored.text(requested_by),
        stored.moment(requested_at),
        stored.integer(generation),
    )


def _source(storable: object) -> str:
    text = stored.text(storable)
    return Source(text) if text in _SOURCES else text


def _read_requested(text: object, message: object) -> Allocation | exception.Refused:
    found = stored.load(text)
    if isinstance(found, Unreadable):
        return exception.StoredInvalid(found.why)
    return exception.RequestInvalid(stored.text(message)) if found is None else found
