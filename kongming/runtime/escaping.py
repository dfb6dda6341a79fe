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

"""Escaping of foreign text in logs, tables, pictures and error messages.

A name, a message or a header may contain line breaks, terminal commands, or marks of the writing
direction. Unescaped they could forge a line, or change the display. They are written as in a
Python string.
"""

from __future__ import annotations

from typing import Any


def escape(text: str, keep: str = "") -> str:
    r"""Return a text in which every character is visible as itself.

    Control and format characters, separators other than the blank, surrogates, and private and
    unassigned characters are replaced by their escapes.

    :param keep: characters that are not replaced.

    >>> print(escape("pinned\n\x1b[31m\u202eINFO"))
    pinned\n\x1b[31m\u202eINFO
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode()
        for each in text
    )


def escape_all(data: Any) -> Any:
    """Return a copy of JSON data with all strings escaped, including names."""
    if isinstance(data, str):
        return escape(data)
    if isinstance(data, list):
        return [escape_all(each) for each in data]
    if isinstance(data, dict):
        return {escape_all(name): escape_all(value) for name, value in data.items()}
    return data
