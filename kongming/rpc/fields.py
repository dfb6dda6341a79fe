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

"""Fields of messages: what a value must be like to be taken.

A check takes a value as JSON has it and returns it, cleaned where that is
harmless; it raises ``MessageInvalid`` if the value can't be what it should be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
# No host runs that was last set up before; a clock that was never set says 1970.
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC).timestamp()

#: What the database's integers hold on all databases.
GENERATION_MAX = 2**31 - 1
#: What stands for a default where there is none.
REQUIRED: Any = object()

_NESTING = 12
_VALUES = 100_000
_SHOWN = 40


def invalid(what: str) -> exception.MessageInvalid:
    """Return the error that says what is wrong with a value."""
    return exception.MessageInvalid(what)


def shown(value: object) -> str:
    """Return a value as an error quotes it: short, in ASCII."""
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
    """Name the place in the errors of a check.

    :raises MessageInvalid: with the place before what was said.
    """
    try:
        yield
    except exception.MessageInvalid as error:
        raise exception.MessageInvalid(f"{place}: {error}") from error


def text(most: int) -> Check:
    """Return a check for text that people read: it is cleaned and cut."""

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise invalid(f"{shown(value)} is not a string")
        return clean(value, most)

    return check


def word(pattern: str, what: str) -> Check:
    """Return a check for text of a form.

    :param pattern: all of the text must match it.
    :param what: what it should be, for the error.
    """
    form = re.compile(pattern)

    def check(value: Any) -> str:
        if not isinstance(value, str) or form.fullmatch(value) is None:
            raise invalid(f"{shown(value)} is not {what}")
        return value

    return check


def one_of(*known: str) -> Check:
    """Return a check for one of some words."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in known:
            raise invalid(f"{shown(value)} is not one of {', '.join(known)}")
        return value

    return check


def whole(low: int, high: int) -> Check:
    """Return a check for a whole number of a range."""

    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise invalid(f"{shown(value)} is not an integer from {low} to {high}")
        return value

    return check


def number(low: float, high: float) -> Check:
    """Return a check for a finite number of a range; it is returned as a float."""

    def check(value: Any) -> float:
        if type(value) not in (int, float) or not low <= value <= high:
            raise invalid(f"{shown(value)} is not a number from {low:g} to {high:g}")
        return float(value)

    return check


def moment(value: Any) -> float:
    """Check a time in seconds since the epoch.

    It may be long ago, as that of the last drift, but not in the future, where
    a day is left to clocks and their time zones.
    """
    latest = time.time() + DAY_S
    if type(value) not in (int, float) or not EARLIEST <= value <= latest:
        raise invalid(
            f"{shown(value)} is not a time between the year 2000 and tomorrow, in seconds since "
            "the epoch: check the sender's clock"
        )
    return float(value)


def flag(value: Any) -> bool:
    """Check a truth value."""
    if not isinstance(value, bool):
        raise invalid(f"{shown(value)} is neither true nor false")
    return value


def maybe(check: Check) -> Check:
    """Return a check that takes null, too."""
    return lambda value: None if value is None else check(value)


def mapped(key: Check, of: Check, most: int) -> Check:
    """Return a check for an object of which each key and each value is checked."""

    def checked(value: Any) -> dict[str, Any]:
        found = {}
        for name, item in sized(value, dict, most).items():
            with within(shown(name)):
                found[key(name)] = of(item)
        return found

    return checked


def listed(of: Check, most: int) -> Check:
    """Return a check for a list of which each item is checked; it is returned as a tuple."""

    def checked(value: Any) -> tuple[Any, ...]:
        found = []
        for place, item in enumerate(sized(value, list, most)):
            with within(f"[{place}]"):
                found.append(of(item))
        return tuple(found)

    return checked


@dataclass(frozen=True, slots=True)
class Partly:
    """A value of which a part was left out.

    :ivar left_out: which parts, and what is wrong with each.
    """

    value: Any
    left_out: tuple[tuple[str, str], ...]


class _Gathering:
    """Takes what checks return, and gathers what they leave out."""

    def __init__(self) -> None:
        self.left_out: list[tuple[str, str]] = []

    def take(self, place: str, taken: Any) -> Any:
        if not isinstance(taken, Partly):
            return taken
        self.left_out += [(f"{place}{key}", why) for key, why in taken.left_out]
        return taken.value

    def all(self, value: Any) -> Any:
        return Partly(value, tuple(self.left_out)) if self.left_out else value


def each(of: Check, most: int, kind: type = tuple) -> Check:
    """Return a check for a list whose bad items are left out alone; see :class:`Partly`.

    :param kind: of the list that is returned.
    """

    def check(value: Any) -> Any:
        found, gathering = [], _Gathering()
        for place, item in enumerate(sized(value, list, most)):
            named = item.get("instance_uuid") if isinstance(item, dict) else item
            key = _key(named, place)
            try:
                found.append(gathering.take(key, of(item)))
            except exception.MessageInvalid as error:
                gathering.left_out.append((key, str(error)))
        return gathering.all(kind(found))

    return check


def each_of(of: Check, most: int) -> Check:
    """Return a check for an object, by instance, whose bad items are left out alone."""

    def check(value: Any) -> Any:
        found, gathering = {}, _Gathering()
        for place, (name, item) in enumerate(sized(value, dict, most).items()):
            try:
                found[instance_uuid(name)] = of(item)
            except exception.MessageInvalid as error:
                gathering.left_out.append((_key(name, place), str(error)))
        return gathering.all(found)

    return check


def lenient(known: Mapping[str, tuple[Check, Any]], most: int) -> Check:
    """Return a check for an object that keeps what it does not know.

    :param known: for each field its check, and what counts if it is missing or bad; if that is
        ``REQUIRED``, the object is bad then.
    """

    def check(value: Any) -> Any:
        told, gathering = sized(value, dict, most), _Gathering()
        found = anything({name: told[name] for name in told.keys() - known.keys()})
        for name, (of, default) in known.items():
            found[name] = default
            try:
                with within(name):
                    if name in told:
                        found[name] = gathering.take(f".{name}", of(told[name]))
                    elif default is REQUIRED:
                        raise invalid("is missing")
            except exception.MessageInvalid as error:
                if default is REQUIRED:
                    raise
                gathering.left_out.append((f".{name}", str(error)))
        return gathering.all(found)

    return check


def _key(named: object, place: int) -> str:
    """Return what tells an item from the others: its instance, or its place."""
    try:
        return str(instance_uuid(named))
    except exception.MessageInvalid:
        return f"[{place}]"


def sized(value: Any, kind: type[list[Any] | dict[str, Any]], most: int) -> Any:
    """Check that a value is a list or an object with at most so many items."""
    if not isinstance(value, kind):
        raise invalid(f"{shown(value)} is not {'a list' if kind is list else 'an object'}")
    if len(value) > most:
        raise invalid(f"{len(value)} items are more than {most}")
    return value


def anything(value: Any) -> Any:
    """Check a value of which nothing is known but that it is JSON, not too deep, nor too much.

    Texts are cleaned; numbers that are not finite are refused.
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


def an_object(value: Any) -> Mapping[str, Any]:
    """Check an object of which nothing else is known; see :func:`anything`."""
    return anything(sized(value, dict, _VALUES))  # type: ignore[no-any-return]


instance_uuid = word(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "the UUID of an instance as Nova writes it"
)
host_name = word(PATTERN, "the name of a host")
reason_code = word(r"([a-z][a-z0-9_]{0,63})?", "a reason code")
generation = whole(0, GENERATION_MAX)
digest = word(r"([0-9a-f]{16,128})?", "a digest")
