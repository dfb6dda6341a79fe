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

"""Instance events, read from Nova's notifications.

Any payload version is read: necessary fields are required, other fields are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
import re
import time
from typing import Any
import uuid

from kongming import exception
from kongming.runtime.cleaning import clean

# Longer than any name of an event, and than any id of Keystone.
_TEXT_MAX = 255

_INSTANCE = "instance."
_DATA = "nova_object.data"

_LEGACY = "compute.instance."
# Legacy names of operations that differ from the versioned ones.
_RENAMED = {"finish_resize": "resize_finish"}
# Longer than any id of oslo.messaging.
_ID_MAX = 100
_PHASE = re.compile(r"(.*)\.(start|end|error)")


@dataclass(frozen=True, slots=True)
class InstanceEvent:
    """One event of one instance.

    :ivar name: Nova's name of the event, as ``instance.create.end``.
    :ivar host: the instance's host in the payload; None if it has none.
    :ivar publisher_host: the host of the service that sent the event.
    :ivar metadata: all metadata of the instance, unchecked.
    :ivar user_id: the user that caused the event; None if Nova does not name it.
    :ivar sent_at: when it was sent, in seconds since the epoch, by the sender's clock but never
        later than now.
    :ivar publisher: the service that sent it, as Nova names it; it has one clock.
    :ivar message_id: identifies the message if it is delivered again; may be empty.
    :ivar ahead_s: the seconds by which the sender's clock is ahead of this host's, at least.
    :ivar state: Nova's state of the instance, as ``building``; empty if it is not given.
    """

    name: str
    instance_uuid: str
    host: str | None
    publisher_host: str
    metadata: Mapping[str, Any]
    user_id: str | None
    sent_at: float
    publisher: str = field(default="", compare=False)
    message_id: str = field(default="", compare=False)
    ahead_s: float = field(default=0.0, compare=False)
    state: str = field(default="", compare=False)

    @property
    def dated_at(self) -> float:
        """When it was sent, by the sender's clock."""
        return self.sent_at + self.ahead_s


def read(message: Mapping[str, Any]) -> InstanceEvent | None:
    """Read a versioned notification.

    :param message: the notification's body, as oslo.messaging unpacked it.
    :returns: None for an event that is not about an instance.
    :raises EventMalformed: if it is, but can't be understood. The message
        quotes only names and types: a body contains auth tokens.
    """
    name = _field(message, "event_type", str)
    if not name.startswith(_INSTANCE):
        return None
    publisher = _field(message, "publisher_id", str)
    data = _field(_field(message, "payload", dict), _DATA, dict)
    sent_at, ahead_s = _sent_at(message)
    return InstanceEvent(
        name=clean(name, _TEXT_MAX),
        instance_uuid=_uuid(_field(data, "uuid", str)),
        host=_field(data, "host", str, nullable=True),
        publisher_host=publisher.partition(":")[2],
        metadata=_field(data, "metadata", dict),
        user_id=_user(data),
        sent_at=sent_at,
        publisher=publisher,
        message_id=_message_id(message),
        ahead_s=ahead_s,
        state=_state(data),
    )


def read_legacy(message: Mapping[str, Any]) -> InstanceEvent | None:
    """Read a legacy notification; the event has the name of the versioned one.

    :param message: the notification's body, as oslo.messaging unpacked it.
    :returns: None for an event that is not about an instance.
    :raises EventMalformed: as :func:`read` does.
    """
    name = _field(message, "event_type", str)
    if not name.startswith(_LEGACY):
        return None
    publisher = _field(message, "publisher_id", str)
    payload = _field(message, "payload", dict)
    sent_at, ahead_s = _sent_at(message)
    return InstanceEvent(
        name=_INSTANCE + _renamed(clean(name, _TEXT_MAX).removeprefix(_LEGACY)),
        instance_uuid=_uuid(_field(payload, "instance_id", str)),
        host=_field(payload, "host", str, nullable=True),
        publisher_host=publisher.partition(".")[2],
        metadata={},
        user_id=None,
        sent_at=sent_at,
        publisher=publisher,
        message_id=_message_id(message),
        ahead_s=ahead_s,
        state=_state(payload),
    )


def _renamed(name: str) -> str:
    """Return the versioned name: ``live_migration._post.end`` → ``live_migration_post.end``."""
    phased = _PHASE.fullmatch(name)
    operation, phase = (phased[1], f".{phased[2]}") if phased else (name, "")
    operation = operation.replace("._", "_").replace(".", "_")
    return _RENAMED.get(operation, operation) + phase


def _user(data: Mapping[str, Any]) -> str | None:
    user = data.get("action_initiator_user")
    return clean(user, _TEXT_MAX) if isinstance(user, str) else None


def _state(data: Mapping[str, Any]) -> str:
    state = data.get("state")
    return state if isinstance(state, str) else ""


def _sent_at(message: Mapping[str, Any]) -> tuple[float, float]:
    """Return when a message was sent, at most now, and the seconds by which it is ahead."""
    now = time.time()
    try:
        dated = datetime.fromisoformat(message["timestamp"])
    except (KeyError, TypeError, ValueError):
        return now, 0.0
    # oslo.messaging writes UTC without a time zone. An event with a date in the future must not
    # count as newer than those that are sent after it.
    sent = dated.replace(tzinfo=dated.tzinfo or UTC).timestamp()
    return min(now, sent), max(0.0, sent - now)


def _message_id(message: Mapping[str, Any]) -> str:
    """Return an id of a message, empty if it has none."""
    known = message.get("message_id")
    if isinstance(known, str) and known:
        return known[:_ID_MAX]
    dated = message.get("timestamp")
    return f"{message['event_type']} {dated}"[:_ID_MAX] if isinstance(dated, str) else ""


def _field(data: Mapping[str, Any], name: str, kind: type, *, nullable: bool = False) -> Any:
    value = data.get(name)
    if isinstance(value, kind) or (nullable and value is None):
        return value
    found = "missing or null" if value is None else f"a {type(value).__name__}"
    raise exception.EventMalformed(f"{name} is {found}, not a {kind.__name__}")


def _uuid(value: str) -> str:
    try:
        return str(uuid.UUID(value))
    except ValueError as error:
        raise exception.EventMalformed("uuid is not a UUID") from error
