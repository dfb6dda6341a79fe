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

"""The output of all commands, in which the text of others is escaped.

JSON and YAML have an escaping of their own.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
import json
import re
from typing import Any

from cliff import lister, show
from cliff.columns import FormattableColumn
from cliff.display import DisplayCommandBase

from kongming.runtime.escaping import escape

_EXACT = frozenset({"json", "yaml"})
_FOR_PROGRAMS = frozenset({"csv", "value", "shell"})
_PICTURE, _SHELL, _TABLE = "picture", "shell", "table"
_ACRONYMS = frozenset({"id", "uuid"})
# A shell interprets these inside the double quotes of the format ``shell``.
_INTERPRETED = re.compile(r"[\\$`]")


class EscapedOutput(DisplayCommandBase[Any]):
    """A command whose cells are escaped in all formats.

    :cvar empty: the message of a list without rows, for people.
    """

    empty = "nothing to show"

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Iterable[Any]
    ) -> int:
        """Write the cells with the formatter."""
        form = parsed_args.formatter
        is_list = isinstance(self, lister.Lister)
        if is_list:
            data = list(data)
            if not data and form == _TABLE:
                # Standard output stays empty, as for programs.
                if self.app.stderr is not None:
                    print(self.empty, file=self.app.stderr)
                return 0
        if is_list and parsed_args.sort_columns:
            data = _sorted(data, column_names, parsed_args)
            # cliff would compare cells of different types.
            parsed_args.sort_columns = []
        if form not in _EXACT:
            data = (
                [[_shown(cell, form) for cell in row] for row in data]
                if is_list
                else [_shown(cell, form) for cell in data]
            )
        if is_list and form == _TABLE:
            headings = {name: heading(name) for name in column_names}
            parsed_args.columns = [
                headings.get(_normalized(name), name) for name in parsed_args.columns
            ]
            column_names = list(headings.values())
        return super().produce_output(parsed_args, column_names, data)  # type: ignore[safe-super]


class Lister(EscapedOutput, lister.Lister):
    """A command of kongming-manage that shows rows."""


class ShowOne(EscapedOutput, show.ShowOne):
    """A command of kongming-manage that shows the fields of one object."""


class _Shown(FormattableColumn[Any]):
    """A column whose text is escaped, except for its line breaks."""

    def __init__(self, column: FormattableColumn[Any], form: str) -> None:
        super().__init__(column)
        self._form = form

    def human_readable(self) -> str:
        return escape(self._value.human_readable(), keep="\n")

    def machine_readable(self) -> Any:
        return _text(_plain(self._value.machine_readable()), self._form)


def heading(name: str) -> str:
    """Return the heading of a column in a table, with its unit in brackets.

    >>> heading("instance_uuid"), heading("heartbeat_age_s")
    ('Instance UUID', 'Heartbeat Age (s)')
    """
    words = name.split("_")
    unit = f" ({words.pop()})" if words[-1] == "s" else ""
    return " ".join(each.upper() if each in _ACRONYMS else each.title() for each in words) + unit


def _shown(cell: Any, form: str) -> Any:
    if isinstance(cell, FormattableColumn):
        return _Shown(cell, form)
    if isinstance(cell, str):
        return _text(cell, form)
    # Numbers stay numbers, which CSV writes without quotes.
    is_number = isinstance(cell, int | float) and not isinstance(cell, bool)
    return cell if is_number or form not in _FOR_PROGRAMS else _text(_plain(cell), form)


def _plain(value: Any) -> str:
    """Return a cell for programs: text unchanged, all else as JSON."""
    if isinstance(value, str):
        return value
    written = json.dumps(value, ensure_ascii=False)
    return written if written.isprintable() else json.dumps(value)


def _text(text: str, form: str) -> str:
    escaped = escape(text, keep="\n" if form == _PICTURE else "")
    return _INTERPRETED.sub(r"\\\g<0>", escaped) if form == _SHELL else escaped


def _sorted(
    data: Iterable[Any], names: Sequence[str], parsed_args: argparse.Namespace
) -> list[Any]:
    """Sort rows by columns; unknown columns are ignored, as in all lists of cliff."""
    rows = list(data)
    places = {_normalized(name): place for place, name in enumerate(names)}
    found = [
        places[_normalized(name)]
        for name in parsed_args.sort_columns
        if _normalized(name) in places
    ]
    for place in reversed(found):
        rows.sort(key=lambda row: _order(row[place]), reverse=parsed_args.sort_direction == "desc")
    return rows


def _normalized(name: str) -> str:
    return name.lower().replace(" ", "_")


def _order(cell: Any) -> tuple[int, float, str]:
    """Return the sort key of a cell: numbers, then text, then absent values."""
    value = cell.machine_readable() if isinstance(cell, FormattableColumn) else cell
    if value is None:
        return (2, 0, "")
    if isinstance(value, int | float):
        return (0, value, "")
    return (1, 0, _plain(value))
