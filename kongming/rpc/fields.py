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

"""Checks of the fields of messages.

A check takes a JSON value and returns it, cleaned where that is harmless. It raises
``MessageInvalid`` for an invalid value.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
import math
import re
import time
from typing import Any

from kongming import exception
from kongming.allocation.host_name import PATTERN
from kongming.runtime.cleaning import clean

Check = Callable[[Any], Any]

DAY_S = 86_400.0
# A clock that was never set shows 1970.
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC).timestamp()

#: The largest integer that all supported databases can store.
GENERATION_MAX = 2**31 - 1
#: The default of a required field.
REQUIRED: Any = object()

_NESTING = 12
_VALUES = 100_000
_SHOWN = 40


def invalid(what: str) -> exception.MessageInvalid:
    """Return the error for an invalid value."""
    return exception.MessageInvalid(what)


def shown(value: object) -> str:
    """Return a value as quoted in an error: short, in ASCII."""
    if isinstance(value, str):
        value = value[: _SHOWN + 1]
    elif not isinstance(value, bool | int | float | None):
        return f"a {type(value).__name__}"
    elif isinstance(value, int) and abs(value) > 2**64:
        return "a huge number"
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


@contextmanager
def within(place: str) -> Iterator[None]:
    """Prefix the errors of a check with the place of the value.

    :raises MessageInvalid: with the place before the original message.
    """
    try:
        yield
    except exception.MessageInvalid as error:
        raise exception.MessageInvalid(f"{place}: {error}") from error


def text(most: int) -> Check:
    """Return a check for text for people, which it cleans and cuts."""

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise invalid(f"{shown(value)} is not a string")
        return clean(value, most)

    return check


def matching(pattern: str, expected: str) -> Check:
    """Return a check for text that matches a pattern.

    :param expected: a description of valid text, for the error.
    """
    compiled = re.compile(pattern)

    def check(value: Any) -> str:
        if not isinstance(value, str) or compiled.fullmatch(value) is None:
            raise invalid(f"{shown(value)} is not {expected}")
        return value

    return check


def one_of(kind: Callable[[str], Any], values: Collection[str]) -> Check:
    """Return a check for one of several values.

    :param kind: converts a valid value.
    """

    def check(value: Any) -> Any:
        if not isinstance(value, str) or value not in values:
            raise invalid(f"{shown(value)} is not one of {', '.join(values)}")
        return kind(value)

    return check


def integer(low: int, high: int) -> Check:
    """Return a check for an integer of a range."""

    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise invalid(f"{shown(value)} is not an integer from {low} to {high}")
        return value

    return check


def number(low: float, high: float) -> Check:
    """Return a check for a finite number of a range, which it returns as a float."""

    def check(value: Any) -> float:
        if type(value) not in (int, float) or not low <= value <= high:
            raise invalid(f"{shown(value)} is not a number from {low:g} to {high:g}")
        return float(value)

    return check


def timestamp(value: Any) -> float:
    """Check a time in seconds since the epoch: since the year 2000, at most a day ahead."""
    latest = time.time() + DAY_S
    if type(value) not in (int, float) or not EARLIEST <= value <= latest:
        raise invalid(
            f"{shown(value)} is not a time between the year 2000 and tomorrow, in seconds since "
            "the epoch: check the sender's clock"
        )
    return float(value)


def boolean(value: Any) -> bool:
    """Check a boolean."""
    if not isinstance(value, bool):
        raise invalid(f"{shown(value)} is neither true nor false")
    return value


def nullable(check: Check) -> Check:
    """Return a check that also accepts null."""
    return lambda value: None if value is None else check(value)


def mapping_of(key: Check, of: Check, most: int) -> Check:
    """Return a check for an object, which checks each key and each value."""

    def checked(value: Any) -> dict[str, Any]:
        found = {}
        for name, item in sized(value, dict, most).items():
            with within(shown(name)):
                found[key(name)] = of(item)
        return found

    return checked


def list_of(of: Check, most: int) -> Check:
    """Return a check for a list, which checks each item and returns a tuple."""

    def checked(value: Any) -> tuple[Any, ...]:
        found = []
        for place, item in enumerate(sized(value, list, most)):
            with within(f"[{place}]"):
                found.append(of(item))
        return tuple(found)

    return checked


@dataclass(frozen=True, slots=True)
class Partial:
    """A value without its invalid parts.

    :ivar left_out: the place of each invalid part, and what is wrong with it.
    """

    value: Any
    left_out: tuple[tuple[str, str], ...]


class _LeftOut:
    """The invalid parts that several checks left out."""

    def __init__(self) -> None:
        self._parts: list[tuple[str, str]] = []

    def add(self, place: str, error: exception.MessageInvalid) -> None:
        self._parts.append((place, str(error)))

    def value_of(self, place: str, checked: Any) -> Any:
        if not isinstance(checked, Partial):
            return checked
        self._parts += [(f"{place}{key}", why) for key, why in checked.left_out]
        return checked.value

    def result(self, value: Any) -> Any:
        return Partial(value, tuple(self._parts)) if self._parts else value


def valid_items(of: Check, most: int, kind: type = tuple) -> Check:
    """Return a check for a list, which leaves out invalid items; see :class:`Partial`.

    :param kind: the type of list to return.
    """

    def check(value: Any) -> Any:
        found, left_out = [], _LeftOut()
        for place, item in enumerate(sized(value, list, most)):
            named = item.get("instance_uuid") if isinstance(item, dict) else item
            key = _key(named, place)
            try:
                found.append(left_out.value_of(key, of(item)))
            except exception.MessageInvalid as error:
                left_out.add(key, error)
        return left_out.result(kind(found))

    return check


def by_instance(of: Check, most: int) -> Check:
    """Return a check for an object by instance UUID, which leaves out invalid items."""

    def check(value: Any) -> Any:
        found, left_out = {}, _LeftOut()
        for place, (name, item) in enumerate(sized(value, dict, most).items()):
            try:
                found[instance_uuid(name)] = of(item)
            except exception.MessageInvalid as error:
                left_out.add(_key(name, place), error)
        return left_out.result(found)

    return check


def lenient(known: Mapping[str, tuple[Check, Any]], most: int) -> Check:
    """Return a check for an object, which keeps unknown fields.

    :param known: for each field its check, and the value to use if it is missing or invalid; with
        ``REQUIRED`` the object itself is invalid then.
    """

    def check(value: Any) -> Any:
        received, left_out = sized(value, dict, most), _LeftOut()
        found = any_json({name: received[name] for name in received.keys() - known.keys()})
        for name, (of, default) in known.items():
            found[name] = default
            try:
                with within(name):
                    if name in received:
                        found[name] = left_out.value_of(f".{name}", of(received[name]))
                    elif default is REQUIRED:
                        raise invalid("is missing")
            except exception.MessageInvalid as error:
                if default is REQUIRED:
                    raise
                left_out.add(f".{name}", error)
        return left_out.result(found)

    return check


def _key(named: object, place: int) -> str:
    """Return the instance of an item, or its place in the list."""
    try:
        return str(instance_uuid(named))
    except exception.MessageInvalid:
        return f"[{place}]"


def sized(value: Any, kind: type[list[Any] | dict[str, Any]], most: int) -> Any:
    """Check that a value is a list or an object with at most ``most`` items."""
    if not isinstance(value, kind):
        raise invalid(f"{shown(value)} is not {'a list' if kind is list else 'an object'}")
    if len(value) > most:
        raise invalid(f"{len(value)} items are more than {most}")
    return value


def any_json(value: Any) -> Any:
    """Check any JSON value of limited depth and size.

    It cleans texts, and refuses numbers that are not finite.
    """
    left = _VALUES

    def check(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if depth > _NESTING or left < 0:
            raise invalid("it has more levels or items than any message of Kongming")
        if isinstance(value, dict):
            return {clean(str(name), 255): check(each, depth + 1) for name, each in value.items()}
        if isinstance(value, list):
            return [check(each, depth + 1) for each in value]
        if isinstance(value, str):
            return clean(value, len(value))
        if isinstance(value, float) and not math.isfinite(value):
            raise invalid("a number is not finite")
        return value

    return check(value, 0)


def json_object(value: Any) -> Mapping[str, Any]:
    """Check an object with any fields; see :func:`any_json`."""
    return any_json(sized(value, dict, _VALUES))  # type: ignore[no-any-return]


instance_uuid = matching(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "the UUID of an instance as Nova writes it"
)
host_name = matching(PATTERN, "the name of a host")
reason_code = matching(r"([a-z][a-z0-9_]{0,63})?", "a reason code")
generation = integer(0, GENERATION_MAX)
digest = matching(r"([0-9a-f]{16,128})?", "a digest")
