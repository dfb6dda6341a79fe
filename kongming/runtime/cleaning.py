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

"""Cleaning: text of others, made fit to be kept, logged and shown."""

from __future__ import annotations

import re

_SPACES = str.maketrans(dict.fromkeys("\t\n\v\f\r", " "))
# In a URL; elsewhere in a text a password can't be told from other words.
_CREDENTIALS = re.compile(r"(?<=//)[^\s'\"]*@")
_INSTEAD = "\N{REPLACEMENT CHARACTER}"


def clean(text: str, most: int) -> str:
    """Return a text in which every character is printable.

    White space becomes a blank; control characters, lone surrogates and what
    turns the direction of writing become U+FFFD.

    :param most: so many characters are kept.

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
