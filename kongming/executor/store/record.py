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
    """All that is known of one instance.

    :ivar asked: what is asked; None if the request was refused for what it says.
    :ivar accepted: what last was in force on the guest; None if nothing was since nothing was
        requested.
    :ivar generation: grows with each change of ``asked``; as it is kept.
    :ivar reason: reason code of a refusal, failure or drift; empty otherwise.
    :ivar changed_at: when the status changed, in seconds since the epoch.
    :ivar source: whose request this is; another version may know more of them than this one.
    :ivar drift: what was last found to be other than wanted; empty if never.
    :ivar drift_at: when, in seconds since the epoch.
    :ivar unobserved: what of the guest's placement can't be observed, and why: drift of it is not
        known; empty if all can.
    """

    instance_uuid: str
    asked: Allocation | Unreadable | None
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
class Change:
    """One entry of an instance's history: what was asked, and what came of it.

    Times are in seconds since the epoch.
    """

    asked_at: float | None
    source: str
    asked_by: str
    asked: Allocation | Unreadable | None
    status: str
    reason: str
    message: str
    changed_at: float


def dump(allocation: Allocation) -> str:
    return json.dumps(allocation.to_json(), sort_keys=True)


def kept(text: str) -> str:
    """Return a text as SQLite takes it: without lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()


def said_of(error: exception.KongmingError | None) -> tuple[str, str]:
    """Return an error's reason and message as they are kept; empty of none."""
    return ("", "") if error is None else (error.reason, kept(str(error)))


def written(asked: Allocation | Unreadable | None) -> str | None:
    """Return what is kept of what is asked; of what can't be read that is all that is known."""
    if asked is None:
        return None
    return asked.text if isinstance(asked, Unreadable) else dump(asked)


def read_record(row: tuple[Any, ...]) -> Record:
    """Read what is kept of an instance, whatever it is.

    A status that is unknown counts as pending: the next look finds it out again.
    """
    instance_uuid, asked, accepted, generation, status, reason, message, *rest = row
    changed_at, source, drift, drift_at, unobserved = rest
    return Record(
        stored.text(instance_uuid),
        stored.load(asked),
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
    """Read what is kept of a request, whatever it is."""
    source, asked, message, asked_by, asked_at, generation = row
    return Request(
        _source(source),
        _asked(asked, message),
        stored.text(asked_by),
        stored.moment(asked_at),
        stored.whole(generation),
    )


def _source(kept: object) -> str:
    text = stored.text(kept)
    return Source(text) if text in _SOURCES else text


def _asked(text: object, message: object) -> Allocation | exception.Refused:
    found = stored.load(text)
    if isinstance(found, Unreadable):
        return exception.StoredInvalid(found.why)
    return exception.RequestInvalid(stored.text(message)) if found is None else found
