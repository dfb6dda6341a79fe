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

"""Text for a terminal: width, cutting, wrapping, and short forms of ids."""

from collections.abc import Iterable, Sequence
import unicodedata

from kongming.runtime.escaping import escape


def columns(text: str) -> int:
    """Return the width of a text in columns; wide characters of East Asia take two."""
    return len(text) if text.isascii() else sum(_width(character) for character in text)


def cut(text: str, width: int) -> str:
    """Escape a text, and shorten it to a width."""
    text = escape(text)
    if columns(text) <= width:
        return text
    while columns(text) > width - 2:
        text = text[:-1]
    return text + ".."


def pad(text: str, width: int) -> str:
    """Pad a text with blanks to a width."""
    return text + " " * (width - columns(text))


def wrap(pieces: Iterable[str], width: int, first: str = "", indent: str = "") -> list[str]:
    """Return lines of pieces, broken only between pieces.

    Blanks at the ends of pieces are dropped at the breaks.

    :param first: the beginning of the first line.
    :param indent: the beginning of the other lines.
    """
    lines = [first]
    empty = True
    for piece in pieces:
        if not empty and columns(lines[-1]) + columns(piece.rstrip()) > width:
            lines.append(indent)
            empty = True
        lines[-1] += piece.lstrip() if empty else piece
        empty = False
    return [line.rstrip() for line in lines]


def joined(words: Sequence[str], separator: str = ", ") -> list[str]:
    """Return words as pieces for :func:`wrap`, with separators."""
    return [word + separator for word in words[:-1]] + list(words[-1:])


def memory(kib: int) -> str:
    """Return an amount of memory in its largest unit."""
    for unit, size in (("GiB", 1 << 20), ("MiB", 1 << 10)):
        if kib >= size:
            return f"{kib / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{kib} KiB"


def spans(ids: Sequence[int]) -> list[str]:
    """Return ascending ids in short: ``4-7``, and ``0,2..62`` for every second one.

    Some firmware numbers the CPUs of two sockets alternately.
    """
    written = []
    start = 0
    while start < len(ids):
        end = _progression_end(ids, start)
        step = ids[start + 1] - ids[start] if end > start else 0
        if step == 1:
            written.append(f"{ids[start]}-{ids[end]}")
        elif end - start >= 3:
            written.append(f"{ids[start]},{ids[start + 1]}..{ids[end]}")
        else:
            written.append(str(ids[start]))
            end = start
        start = end + 1
    return written


def _progression_end(ids: Sequence[int], start: int) -> int:
    end = min(start + 1, len(ids) - 1)
    while end + 1 < len(ids) and ids[end + 1] - ids[end] == ids[start + 1] - ids[start]:
        end += 1
    return end


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
