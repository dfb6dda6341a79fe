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

"""The view of a host as others tell it: what is taken of it, whatever was told.

:mod:`kongming.host.snapshot` makes it. What is read here is a host's word, or was kept long ago
by another version: parts that can't be what they should be are left out alone, what is missing
has a default, and what is not known is kept as it is.
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

# With all that is around it, it fits into a message; a MEDIUMTEXT of MariaDB holds more.
_LENGTH_MAX = 6 * 2**20
_ITEMS_MAX = 10_000
_FIELDS_MAX = 100

_flag, _name, _message = form.flag, form.text(255), form.text(4_000)
# Firmware has odd numbers for sockets and cores, -1 among them.
_number = form.whole(-(2**31), 2**32)
_kib = form.whole(0, 2**53)
_id = form.whole(0, MAX_ID)
_numeral = form.word(r"[0-9]{1,4}", "a number up to 9999")
_set = form.word(r"([0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*)?", "a set as 0-3,8")


def _ids(value: Any) -> str:
    """Check the written form of a set of ids, without making the set."""
    text: str = _set(value)
    for item in filter(None, text.split(",")):
        first, _, last = item.partition("-")
        if not int(first) <= int(last or first) <= MAX_ID:
            raise form.invalid(f"{form.shown(item)} is not a range of ids up to {MAX_ID}")
    return text


def _objects(known: Mapping[str, tuple[Check, Any]]) -> tuple[Check, Any]:
    """Return a field that is a list of objects."""
    return form.each(form.lenient(known, _FIELDS_MAX), _ITEMS_MAX, list), []


_CPU = {
    "id": (_id, REQUIRED),
    "socket": (form.maybe(_number), None),
    "die": (form.maybe(_number), None),
    "core": (form.maybe(_number), None),
    "siblings": (_ids, ""),
    "online": (_flag, False),
    "isolated": (_flag, False),
    "core_type": (form.maybe(_name), None),
    "capacity": (form.maybe(_number), None),
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
    "free_kib": (form.maybe(_kib), None),
    "distances": (form.mapped(_numeral, _number, _ITEMS_MAX), {}),
    "cpus": _objects(_CPU),
    "caches": _objects(_CACHE),
}
_GRANT: dict[str, tuple[Check, Any]] = {
    "vcpu_pinning": (form.mapped(_numeral, _ids, _ITEMS_MAX), {}),
    "emulator_pinning": (_ids, ""),
    "iothread_pinning": (form.mapped(_numeral, _ids, _ITEMS_MAX), {}),
    "numa_nodes": (_ids, ""),
    "vcpu_cells": (form.mapped(_numeral, _id, _ITEMS_MAX), {}),
    "realtime_vcpus": (_ids, ""),
}
_GUEST = {
    "instance_uuid": (form.instance_uuid, REQUIRED),
    "name": (_name, ""),
    "project_id": (form.maybe(_name), None),
    "nova": (_flag, False),
    "pins": (form.mapped(_numeral, _ids, _ITEMS_MAX), {}),
    "cpuset": (form.maybe(_ids), None),
    "memory_nodes": (form.maybe(_ids), None),
    "has_baseline": (_flag, False),
    "grant": (form.maybe(form.lenient(_GRANT, _FIELDS_MAX)), None),
}
_VIOLATION = {
    "kind": (_name, REQUIRED),
    "instance_uuids": (form.each(form.instance_uuid, _ITEMS_MAX, list), []),
    "cpus": (_ids, ""),
    "nodes": (_ids, ""),
    "message": (_message, ""),
}
_RULES: dict[str, tuple[Check, Any]] = {
    "allowed_cpus": (form.maybe(_ids), None),
    "reserved_cpus": (_ids, ""),
    "dedicated_cpus": (_ids, ""),
    "shared_cpus": (_ids, ""),
    "allowed_nodes": (form.maybe(_ids), None),
    "allowed_projects": (form.each(_name, _ITEMS_MAX, list), []),
    "overlap": (form.one_of("allow", "warn", "refuse"), "warn"),
    # A host that does not say so does not look for it.
    "smt": (form.one_of("allow", "warn", "refuse"), "allow"),
    # An older one refuses such guests.
    "numa_guests": (form.one_of("within", "refuse"), "refuse"),
    "numa_across_cells": (_flag, False),
}
_NO_RULES = {name: default for name, (_, default) in _RULES.items()}
_VIEW = form.lenient(
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
    """Read a view; what can't be used of it is left out.

    :returns: the view, or ``Partly`` if something was left out.
    :raises MessageInvalid: if it is no object, or longer than any host's.
    """
    taken = _VIEW(value)
    if len(json.dumps(_value(taken))) > _LENGTH_MAX:
        raise form.invalid(
            f"it has more than {_LENGTH_MAX} characters, the limit of a host's snapshot"
        )
    return taken


def fitted(value: object) -> dict[str, Any]:
    """Return what can be shown of a view, whatever it is: all its parts are there."""
    try:
        view: dict[str, Any] = _value(_VIEW(value))
    except exception.MessageInvalid:
        view = _value(_VIEW({}))
    return view


def load(text: str | None) -> dict[str, Any] | None:
    """Load a view that was kept; return None if there is none, or none that can be loaded.

    It is as it was kept: :func:`fitted` makes the best of it.
    """
    try:
        view = json.loads(text or "null", parse_float=_finite, parse_constant=_nothing)
    except (ValueError, RecursionError):
        return None
    return view if isinstance(view, dict) else None


def guests(text: str) -> list[str]:
    """Load only the UUIDs of the guests of a view that was kept."""
    try:
        return [*_value(_GUESTS((load(text) or {}).get("guests")))]
    except exception.MessageInvalid:
        return []


def _its_uuid(guest: Any) -> Any:
    return form.instance_uuid(guest.get("instance_uuid") if isinstance(guest, dict) else guest)


_GUESTS = form.each(_its_uuid, _ITEMS_MAX)


def _value(taken: Any) -> Any:
    return taken.value if isinstance(taken, form.Partly) else taken


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _nothing(_text: str) -> None:
    """Stand for NaN and Infinity, which are not JSON."""
