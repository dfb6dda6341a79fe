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
"""A file that an operator wrote, in JSON or YAML."""

from __future__ import annotations

from collections.abc import Hashable
import json
from pathlib import Path
import sys
from typing import Any

import yaml

from kongming import exception
from kongming.cpuset import shown

STDIN = "-"

# libyaml's is ten times as fast, where PyYAML was built with it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load(path: str) -> Any:
    """Load a file; numbers as names become text, as they have to be in JSON.

    :param path: ``-`` is the standard input.
    :raises RequestInvalid: if it can't be read, is neither, or says something twice.
    """
    try:
        text = sys.stdin.read() if path == STDIN else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise exception.RequestInvalid(f"{path} can't be read: {error}") from error
    try:
        return _load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise exception.RequestInvalid(f"{path} is neither JSON nor YAML: {said}") from error
    except _Wrong as error:
        raise exception.RequestInvalid(f"{path}: {error}") from None


def _load(text: str) -> Any:
    # JSON is YAML, too, but read a hundred times as fast; and YAML takes no tabs.
    try:
        return json.loads(text, object_pairs_hook=_object)
    except ValueError:
        return yaml.load(text, _Unambiguous)  # noqa: S506, it is a safe loader


class _Wrong(Exception):
    """The text says something that can't be meant."""


class _Unambiguous(_Loader):  # type: ignore[misc]
    """A safe loader that does not let the later of two entries win."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        line = f"line {node.start_mark.line + 1}: "
        # What a merge key brings may be replaced: it is checked where it stands.
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        _object([(self.construct_object(key, deep=True), None) for key in own], line)
        self.flatten_mapping(node)
        return {
            str(self.construct_object(key)): self.construct_object(value, deep=True)
            for key, value in node.value
        }


def _object(pairs: list[tuple[Any, Any]], where: str = "") -> dict[Hashable, Any]:
    found: dict[Hashable, Any] = {}
    for name, value in pairs:
        if not isinstance(name, str | int) or isinstance(name, bool):
            raise _Wrong(f"{where}{shown(str(name))} is not a name")
        if str(name) in found:
            raise _Wrong(f"{where}{shown(str(name))} is there twice")
        found[str(name)] = value
    return found
