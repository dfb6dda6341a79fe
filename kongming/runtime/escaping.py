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

"""Text of others, made safe to show: in logs, tables, pictures and error messages.

A name, a message or a header may hold line breaks, terminal commands, or marks
that turn the reading order: shown as they are, they would forge a line or
change what the reader sees. They are shown as Python writes them in a string.
"""

from __future__ import annotations

from typing import Any


def escape(text: str, keep: str = "") -> str:
    r"""Return a text in which every character is visible as itself.

    Replaced are control and format characters, separators other than the
    blank, surrogates, private and unassigned ones, each by its escape.

    :param keep: characters that stay all the same.

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
    """Return a copy of JSON data in which all texts are escaped, names included."""
    if isinstance(data, str):
        return escape(data)
    if isinstance(data, list):
        return [escape_all(each) for each in data]
    if isinstance(data, dict):
        return {escape_all(name): escape_all(value) for name, value in data.items()}
    return data
