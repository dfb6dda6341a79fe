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

"""Files of operators in JSON or YAML; values are read as they were typed."""

from __future__ import annotations

from dataclasses import dataclass
import json
from pathlib import Path
import sys
from typing import Any

from kongming import exception
from kongming.runtime import core_schema
from kongming.runtime.core_schema import Steps

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Document:
    """The content of a file.

    :ivar path: the path in the command line.
    """

    path: str
    text: str
    value: Any

    def refusal(self, steps: Steps, why: str) -> exception.RequestInvalid:
        """Return the refusal of a value, with its line.

        :param steps: the names and positions that lead to it.
        """
        # JSON was read without lines, so read it as YAML, with blanks for tabs.
        try:
            lines = core_schema.read(self.text.replace("\t", " ")).lines
        except exception.RequestInvalid:
            lines = {}
        while steps and steps not in lines:
            steps = steps[:-1]
        where = f"{self.path}, line {lines[steps]}" if steps else self.path
        return exception.RequestInvalid(f"{where}: {why}")


def load(path: str) -> Document:
    """Read a file, in which names must be text, as in JSON.

    :param path: ``-`` is the standard input.
    :raises RequestInvalid: if it can't be read, is neither JSON nor YAML, or has a name twice.
    """
    text = _text(path)
    try:
        return Document(path, text, _value(text))
    except exception.RequestInvalid as error:
        raise exception.RequestInvalid(f"{path}, {error}") from None


def _text(path: str) -> str:
    try:
        content = _standard_input() if path == STDIN else Path(path).read_bytes()
        return content.decode("utf-8-sig")
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise exception.RequestInvalid(f"{path} can't be read: {why}") from None
    except UnicodeDecodeError as error:
        raise exception.RequestInvalid(
            f"{path} can't be read: its byte {error.start + 1} is not UTF-8; save it as UTF-8"
        ) from None


def _standard_input() -> bytes:
    if sys.stdin is None:
        raise exception.RequestInvalid(f"{STDIN}: the standard input is closed; name a file")
    # Bytes, because Python would decode by the locale.
    return sys.stdin.buffer.read()


def _value(text: str) -> Any:
    # JSON is also YAML, but is read a hundred times faster; and YAML refuses tabs.
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=core_schema.plain,
            parse_float=_other,
            parse_constant=_other,
        )
    except _Other:
        text = text.replace("\t", " ")
    except (ValueError, RecursionError):
        pass
    return core_schema.read(text).value


class _Other(Exception):
    """JSON with a number that is no integer, or a name twice: it is read as YAML."""


def _other(_text: str) -> Any:
    raise _Other


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Other
    return found
