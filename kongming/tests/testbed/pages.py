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

"""What the pages of the documentation have people type and write."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
import re
import textwrap

TOP = Path(__file__).resolve().parents[3]
INSTALL = TOP / "doc/source/install"

_BLOCK = re.compile(
    r"\.\. code-block:: (\w+)\n(?: +:caption: (\S+)\n)?\n((?:[ ]+.*\n|\n)+)|"
    r"^(\S.*)\n[=~-]{4,}$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A literal block.

    :ivar kind: its language: console, ini, ...
    :ivar path: its caption, which may be the file whose content it is
    :ivar section: the heading above it
    """

    kind: str
    path: str
    text: str
    section: str

    def typed(self, prompt: str = "# ") -> list[str]:
        """Return the lines that people type at a prompt."""
        if self.kind != "console":
            return []
        lines = re.sub(r"\\\n *", "", self.text).splitlines()
        return [line.removeprefix(prompt) for line in lines if line.startswith(prompt)]


def blocks(page: Path) -> list[Block]:
    """Return the literal blocks of a page, in order."""
    section, found = "", []
    for kind, path, text, heading in _BLOCK.findall(page.read_text()):
        section = heading or section
        if kind:
            found.append(Block(kind, path, textwrap.dedent(text).strip("\n"), section))
    return found


def typed(found: Iterable[Block], prompt: str = "# ") -> list[str]:
    """Return all that people type at a prompt."""
    return [line for block in found for line in block.typed(prompt)]
