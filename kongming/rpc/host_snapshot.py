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

"""Snapshots of hosts, as received from a host or loaded from the database.

:mod:`kongming.host.snapshot` makes them, perhaps in another version. Invalid parts are left out,
missing fields have defaults, and unknown fields are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
import json
import math
from typing import Any

from kongming import exception
from kongming.allocation.cpuset import MAX_ID
from kongming.rpc import fields as form
from kongming.rpc.fields import REQUIRED, Check

# It must fit into a message, and into a MEDIUMTEXT of MariaDB.
_LENGTH_MAX = 6 * 2**20
_ITEMS_MAX = 10_000
_FIELDS_MAX = 100

_flag, _name, _message = form.boolean, form.text(255), form.text(4_000)
# Some firmware numbers sockets and cores oddly, with -1 for example.
_number = form.integer(-(2**31), 2**32)
_kib = form.integer(0, 2**53)
_id = form.integer(0, MAX_ID)
_numeral = form.matching(r"[0-9]{1,4}", "a number up to 9999")
_set = form.matching(r"([0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*)?", "a set as 0-3,8")


def _ids(value: Any) -> str:
    """Check the text of a set of ids, without making the set."""
    text: str = _set(value)
    for item in filter(None, text.split(",")):
        first, _, last = item.partition("-")
        if not int(first) <= int(last or first) <= MAX_ID:
            raise form.invalid(f"{form.shown(item)} is not a range of ids up to {MAX_ID}")
    return text


def _objects(known: Mapping[str, tuple[Check, Any]]) -> tuple[Check, Any]:
    """Return a field that is a list of objects."""
    return form.valid_items(form.lenient(known, _FIELDS_MAX), _ITEMS_MAX, list), []


_CPU = {
    "id": (_id, REQUIRED),
    "socket": (form.nullable(_number), None),
    "die": (form.nullable(_number), None),
    "core": (form.nullable(_number), None),
    "siblings": (_ids, ""),
    "online": (_flag, False),
    "isolated": (_flag, False),
    "core_type": (form.nullable(_name), None),
    "capacity": (form.nullable(_number), None),
}
_CACHE = {
    "level": (_number, REQUIRED),
    "kind": (_name, ""),
    "size_kib": (_kib, 0),
    "cpus": (_ids, ""),
}
_CELL = {
    "id": (_id, REQUIRED),
    "memory_kib": (_kib, 0),
    "free_kib": (form.nullable(_kib), None),
    "distances": (form.mapping_of(_numeral, _number, _ITEMS_MAX), {}),
    "cpus": _objects(_CPU),
    "caches": _objects(_CACHE),
}
_GRANT: dict[str, tuple[Check, Any]] = {
    "vcpu_pinning": (form.mapping_of(_numeral, _ids, _ITEMS_MAX), {}),
    "emulator_pinning": (_ids, ""),
    "iothread_pinning": (form.mapping_of(_numeral, _ids, _ITEMS_MAX), {}),
    "numa_nodes": (_ids, ""),
    "vcpu_cells": (form.mapping_of(_numeral, _id, _ITEMS_MAX), {}),
    "realtime_vcpus": (_ids, ""),
}
_GUEST = {
    "instance_uuid": (form.instance_uuid, REQUIRED),
    "name": (_name, ""),
    "project_id": (form.nullable(_name), None),
    "nova": (_flag, False),
    "pins": (form.mapping_of(_numeral, _ids, _ITEMS_MAX), {}),
    "cpuset": (form.nullable(_ids), None),
    "memory_nodes": (form.nullable(_ids), None),
    "has_baseline": (_flag, False),
    "grant": (form.nullable(form.lenient(_GRANT, _FIELDS_MAX)), None),
}
_VIOLATION = {
    "kind": (_name, REQUIRED),
    "instance_uuids": (form.valid_items(form.instance_uuid, _ITEMS_MAX, list), []),
    "cpus": (_ids, ""),
    "nodes": (_ids, ""),
    "message": (_message, ""),
}
_RULES: dict[str, tuple[Check, Any]] = {
    "allowed_cpus": (form.nullable(_ids), None),
    "reserved_cpus": (_ids, ""),
    "dedicated_cpus": (_ids, ""),
    "shared_cpus": (_ids, ""),
    "allowed_nodes": (form.nullable(_ids), None),
    "allowed_projects": (form.valid_items(_name, _ITEMS_MAX, list), []),
    "overlap": (form.one_of(str, ("allow", "warn", "refuse")), "warn"),
    # Older hosts do not check it.
    "smt": (form.one_of(str, ("allow", "warn", "refuse")), "allow"),
    # Older hosts refuse such guests.
    "numa_guests": (form.one_of(str, ("within", "refuse")), "refuse"),
    "numa_across_cells": (_flag, False),
}
_NO_RULES = {name: default for name, (_, default) in _RULES.items()}
_SNAPSHOT = form.lenient(
    {
        "cells": _objects(_CELL),
        "unassigned_cpus": _objects(_CPU),
        "guests": _objects(_GUEST),
        "rules": (form.lenient(_RULES, _FIELDS_MAX), _NO_RULES),
        "violations": _objects(_VIOLATION),
    },
    _FIELDS_MAX,
)


def read(value: Any) -> Any:
    """Read a snapshot, without its invalid parts.

    :returns: the snapshot, or ``Partial`` if parts were left out.
    :raises MessageInvalid: if it is no object, or longer than the snapshot of any host.
    """
    checked = _SNAPSHOT(value)
    if len(json.dumps(_value(checked))) > _LENGTH_MAX:
        raise form.invalid(
            f"it has more than {_LENGTH_MAX} characters, the limit of a host's snapshot"
        )
    return checked


def fitted(value: object) -> dict[str, Any]:
    """Return a complete snapshot with the valid parts of any value."""
    try:
        found: dict[str, Any] = _value(_SNAPSHOT(value))
    except exception.MessageInvalid:
        found = _value(_SNAPSHOT({}))
    return found


def load(text: str | None) -> dict[str, Any] | None:
    """Return a stored snapshot, unchecked (see :func:`fitted`); None if it can't be loaded."""
    try:
        found = json.loads(text or "null", parse_float=_finite, parse_constant=_null)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def guests(text: str) -> list[str]:
    """Return only the UUIDs of the guests of a stored snapshot."""
    try:
        return [*_value(_GUESTS((load(text) or {}).get("guests")))]
    except exception.MessageInvalid:
        return []


def _guest_uuid(guest: Any) -> Any:
    return form.instance_uuid(guest.get("instance_uuid") if isinstance(guest, dict) else guest)


_GUESTS = form.valid_items(_guest_uuid, _ITEMS_MAX)


def _value(checked: Any) -> Any:
    return checked.value if isinstance(checked, form.Partial) else checked


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _null(_text: str) -> None:
    """Return null for NaN and Infinity, which are not JSON."""
