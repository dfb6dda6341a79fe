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

"""Cleaning of foreign text before it is stored, logged or shown."""

from __future__ import annotations

import re

_SPACES = str.maketrans(dict.fromkeys("\t\n\v\f\r", " "))
# In URLs; elsewhere a password can't be recognized.
_CREDENTIALS = re.compile(r"(?<=//)[^\s'\"]*@")
_INSTEAD = "\N{REPLACEMENT CHARACTER}"


def clean(text: str, most: int) -> str:
    """Return a text in which every character is printable.

    White space becomes a blank. Control characters, lone surrogates and marks of the writing
    direction become U+FFFD.

    :param most: the number of characters to keep.

    >>> clean("two\\nlines, \\x1b[31mred", 20)
    'two lines, �[31mred'
    """
    text = text[:most]
    if text.isprintable():
        return text
    text = text.translate(_SPACES)
    return "".join(each if each.isprintable() else _INSTEAD for each in text)


def without_credentials(text: str) -> str:
    """Return a text whose URLs have neither user nor password.

    >>> without_credentials("rabbit://user:secret@host is not for secret")
    'rabbit://***@host is not for secret'
    """
    return _CREDENTIALS.sub("***@", text)
