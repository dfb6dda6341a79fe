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

"""Reads the rows of a database, whatever they contain: reading never fails.

Rules apply to new requests, not to stored ones: another version may have written them by other
rules, or an editor may have changed them. So an unreadable allocation becomes a value with the
reason, and all other rows are read.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
import json
import math
import re
from typing import Any

from kongming import exception
from kongming.allocation.allocation import Allocation
from kongming.allocation.cpuset import shown
from kongming.allocation.windows import Window

# The end of year 9999, the last one that a date can have.
_LATEST = 253_402_300_799.0
_DEPTH, _LENGTH = 8, 1_000

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_QUOTA = frozenset({"quota_us", "period_us"})
_PARTS = frozenset(field.name for field in fields(Allocation)) - {"windows"}
_WINDOW = frozenset(field.name for field in fields(Window)) | _PARTS


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A stored allocation that this version can't read.

    :ivar text: what is stored.
    :ivar why: the reason, for the operator.
    """

    text: str
    why: str

    def to_json(self) -> dict[str, Any]:
        """Return it for other services, which may be able to read it; a small JSON object."""
        try:
            value = _parse(self.text)
        except Exception:  # noqa: BLE001, it is reported already
            value = None
        if isinstance(value, dict) and not _is_deeper(value, _DEPTH):
            return value
        return {"unreadable": self.text[:_LENGTH]}


class _Wrong(Exception):
    """A stored value is not one that this version writes."""


def load(text: object) -> Allocation | Unreadable | None:
    """Read a stored allocation, which is JSON; None if there is none."""
    if text is None:
        return None
    if not isinstance(text, str):
        return Unreadable(ascii(text), f"it is stored as {type(text).__name__}, not as text")
    try:
        return _read(_parse(text))
    # Whatever is wrong with a row, it does not affect others.
    except Exception as error:  # noqa: BLE001
        return Unreadable(text, _why(error))


def understand(value: object) -> Allocation | Unreadable:
    """Read an allocation from another service's JSON data."""
    try:
        return _read(value)
    except Exception as error:  # noqa: BLE001
        return Unreadable(json.dumps(value), _why(error))


def readable(found: Allocation | Unreadable | None) -> Allocation | None:
    """Return an allocation; None if there is none, or it can't be read."""
    return None if isinstance(found, Unreadable) else found


def is_instance(key: object) -> bool:
    """Return whether a key can be an instance's: a UUID as Nova writes it."""
    return isinstance(key, str) and _UUID.fullmatch(key) is not None


def moment(value: object, default: float = 0.0) -> float:
    """Read a time in seconds since the epoch."""
    known = isinstance(value, int | float) and 0 <= value <= _LATEST
    return float(value) if known else default  # type: ignore[arg-type]


def maybe_moment(value: object) -> float | None:
    """Read a time that may be absent."""
    found = moment(value, math.nan)
    return None if math.isnan(found) else found


def integer(value: object) -> int:
    """Read an integer; 0 for any other value."""
    return value if isinstance(value, int) else 0


def text(value: object) -> str:
    """Read a text."""
    return value if isinstance(value, str) else "" if value is None else ascii(value)


def _parse(written: str) -> Any:
    return json.loads(written, parse_constant=_no_number, parse_float=_parse_float)


def _read(value: Any) -> Allocation:
    _check(value, _PARTS | {"windows"})
    windows = value.get("windows", [])
    if not isinstance(windows, list):
        raise _Wrong("windows is not a list")
    for window in windows:
        _check(window, _WINDOW)
    return Allocation.from_json(value)


def _check(value: Any, known: frozenset[str]) -> None:
    if not isinstance(value, dict):
        raise _Wrong(f"it has {type(value).__name__} in place of an object")
    if unknown := sorted(value.keys() - known):
        raise _Wrong(f"this version does not know its field {shown(unknown[0])}")
    for name, each in value.items():
        if each is None or isinstance(each, bool):
            raise _Wrong(f"{name} is {json.dumps(each)}")
    quota = value.get("vcpu_quota")
    if isinstance(quota, dict):
        _check(quota, _QUOTA)


def _no_number(written: str) -> Any:
    raise _Wrong(f"{written} is not a JSON number")


def _parse_float(written: str) -> int:
    value = float(written)
    if not value.is_integer():
        raise _Wrong(f"{shown(written)} is not a whole number")
    return int(value)


def _is_deeper(value: Any, depth: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth == 0 or any(_is_deeper(each, depth - 1) for each in inner)


def _why(error: Exception) -> str:
    if isinstance(error, _Wrong | exception.KongmingError):
        return str(error)
    if isinstance(error, json.JSONDecodeError):
        return f"it is not JSON from character {error.pos + 1} on"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return f"it is not the JSON of an allocation ({type(error).__name__})"
