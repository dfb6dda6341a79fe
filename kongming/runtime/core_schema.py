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

"""YAML by the core schema of YAML 1.2, with decimal integers as the only numbers.

Loaders of YAML 1.1, such as PyYAML, read 010 as 8, 17:04 as 1024 and no as false. Here only plain
decimal integers are numbers, and only true and false are booleans; all other text without quotes
is a string, as it was typed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
import re
from typing import Any

import yaml

from kongming import exception
from kongming.allocation.cpuset import shown

#: The path of a value: names and positions.
Steps = tuple[str | int, ...]

#: The values of an allocation map need six levels. Each use of an alias counts.
MAX_DEPTH = 32
MAX_VALUES = 1_000_000

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_MERGE = "<<"
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)", re.ASCII)
# The type of each tag.
_TAGGED = {f"{_TAG}int": int, f"{_TAG}bool": bool, f"{_TAG}null": type(None)}


@dataclass(frozen=True, slots=True)
class Read:
    """A document.

    :ivar lines: the line of each value, by its path, except values of aliases.
    """

    value: Any
    lines: Mapping[Steps, int]


def read(text: str) -> Read:
    """Read the only document of a text; all keys are strings.

    :raises RequestInvalid: naming the line, if it is not YAML, or is ambiguous.
    """
    reader = _Reader(yaml.parse(text, Loader=_Loader))
    try:
        return Read(reader.document(), reader.lines)
    except yaml.MarkedYAMLError as error:
        line = min((error.problem_mark or error.context_mark).line, text.count("\n")) + 1
        hint = "indent with spaces, not tabs" if _has_tab(text, line) else error.problem
        raise exception.RequestInvalid(
            f"line {line}: this is neither JSON nor YAML: {hint}"
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise exception.RequestInvalid(
            f"line {line}: this is neither JSON nor YAML: it has a control character"
        ) from None


def plain(text: str) -> Any:
    """Return the value of a scalar without quotes."""
    if text in _WORDS:
        return _WORDS[text]
    try:
        return int(text) if _INTEGER.fullmatch(text) else text
    except ValueError:
        # Python refuses numbers with thousands of digits.
        return text


class _Reader:
    """Builds values from the events of a parser."""

    def __init__(self, events: Iterable[Any]) -> None:
        self.lines: dict[Steps, int] = {}
        self._events: Iterator[Any] = iter(events)
        self._anchors: dict[str, Any] = {}
        self._open: set[str] = set()
        self._left = MAX_VALUES

    def document(self) -> Any:
        next(self._events)
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        value = self._value(next(self._events), ())
        next(self._events)
        if not isinstance(after := next(self._events), yaml.StreamEndEvent):
            raise _wrong(after, "a second document begins here; only one is allowed")
        return value

    def _value(self, event: Any, steps: Steps) -> Any:
        self.lines[steps] = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, len(steps))
        self._count(event, len(steps))
        if event.anchor:
            self._open.add(event.anchor)
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
        elif event.tag not in (None, "!", f"{_TAG}map", f"{_TAG}seq"):
            raise _wrong(event, f"the tag {shown(event.tag)} is unknown; remove it")
        elif isinstance(event, yaml.MappingStartEvent):
            value = self._mapping(steps)
        else:
            value = self._sequence(steps)
        if event.anchor:
            self._open.discard(event.anchor)
            self._anchors[event.anchor] = value
        return value

    def _mapping(self, steps: Steps) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] | None = None
        while not isinstance(key := next(self._events), yaml.MappingEndEvent):
            if not isinstance(key, yaml.ScalarEvent):
                raise _wrong(key, "this is not a key: a key is a string")
            name, event = key.value, next(self._events)
            if name == _MERGE and key.implicit[0]:
                if merged is not None:
                    raise _wrong(key, f"{_MERGE} is repeated: merge a list, [*a, *b]")
                merged = _merged(event, self._value(event, (*steps, name)))
                continue
            if name in own:
                raise _wrong(key, f"{shown(name)} is repeated")
            if ":" in name and key.implicit[0] and _is_left_out(event):
                raise _wrong(
                    key,
                    f"{shown(name)} has no value: write a space after the colon of a key, as in "
                    '{0: "5"}, or put the whole text in quotes',
                )
            own[name] = self._value(event, (*steps, name))
        return {**(merged or {}), **own}

    def _sequence(self, steps: Steps) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            found.append(self._value(event, (*steps, len(found))))
        return found

    def _alias(self, event: Any, depth: int) -> Any:
        if event.anchor in self._open:
            raise _wrong(event, f"*{event.anchor} is inside the value that it refers to")
        if event.anchor not in self._anchors:
            raise _wrong(event, f"the anchor &{event.anchor} is not defined before")
        value = self._anchors[event.anchor]
        self._count_all(event, value, depth)
        return value

    def _count_all(self, event: Any, value: Any, depth: int) -> None:
        """Count the values of an alias as if they were written there."""
        self._count(event, depth)
        if isinstance(value, dict | list):
            for each in value.values() if isinstance(value, dict) else value:
                self._count_all(event, each, depth + 1)

    def _count(self, event: Any, depth: int) -> None:
        self._left -= 1
        if depth > MAX_DEPTH:
            raise _wrong(event, f"this is nested deeper than {MAX_DEPTH} levels")
        if self._left < 0:
            raise _wrong(
                event, f"there are more than {MAX_VALUES} values, including those of aliases"
            )


def _scalar(event: Any) -> Any:
    if event.tag in ("!", f"{_TAG}str"):
        return event.value
    if event.tag is None:
        return plain(event.value) if event.implicit[0] else event.value
    value = plain(event.value)
    if type(value) is not _TAGGED.get(event.tag):
        raise _wrong(
            event,
            f"{shown(event.value)} can't be read with the tag {shown(event.tag)}; remove the tag",
        )
    return value


def _merged(event: Any, value: Any) -> dict[str, Any]:
    """Return the mapping of a merge key; of several mappings the first with a name counts."""
    merged: dict[str, Any] = {}
    for each in value if isinstance(value, list) else [value]:
        if not isinstance(each, dict):
            raise _wrong(event, f"{_MERGE} merges mappings, and this is not a mapping")
        merged = {**each, **merged}
    return merged


def _is_left_out(event: Any) -> bool:
    return isinstance(event, yaml.ScalarEvent) and event.implicit[0] and not event.value


def _has_tab(text: str, line: int) -> bool:
    written = text.split("\n")[line - 1 : line]
    return any("\t" in each[: len(each) - len(each.lstrip())] for each in written)


def _wrong(event: Any, why: str) -> exception.RequestInvalid:
    return exception.RequestInvalid(f"line {event.start_mark.line + 1}: {why}")
