#!/usr/bin/env python3
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

"""Keep the Chinese guides complete: each document of user/ and install/ has its .po file.

tools/translations.py --update    adds new messages, untranslated, and removes vanished ones
tools/translations.py --check     fails unless all messages are translated, with the same markup
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
import io
from itertools import islice
from pathlib import Path
import subprocess
import sys
import tempfile
from typing import Any

from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po
from docutils import nodes
from docutils.core import publish_doctree
from docutils.parsers.rst import roles

SOURCE = Path(__file__).resolve().parent.parent / "doc" / "source"
TRANSLATIONS = SOURCE / "locale" / "zh_CN" / "LC_MESSAGES"
GUIDES = ("install", "user")
SHOWN = 5
HEADER = """msgid ""
msgstr ""
"Language: zh_CN\\n"
"Content-Type: text/plain; charset=UTF-8\\n"

"""


def read(file: Path) -> Catalog:
    """Return the messages of a file, none if there is no such file."""
    return read_po(io.BytesIO(file.read_bytes() if file.exists() else b""), abort_invalid=True)


def templates() -> dict[Path, Catalog]:
    """Return the messages that Sphinx extracts from each document, by .po file."""
    # A file that is here already, and of no document, has no messages.
    found = {file: Catalog() for file in TRANSLATIONS.rglob("*.po")}
    with tempfile.TemporaryDirectory() as folder:
        sphinx = [sys.executable, "-m", "sphinx", "-Q", "-b", "gettext", str(SOURCE), folder]
        subprocess.run(sphinx, check=True, stderr=subprocess.DEVNULL)
        for file in sorted(Path(folder).rglob("*.pot")):
            if file.relative_to(folder).parts[0] in GUIDES:
                found[TRANSLATIONS / file.relative_to(folder).with_suffix(".po")] = read(file)
    return found


def update(file: Path, template: Catalog) -> None:
    """Write the template's messages to the .po file, with the translations that it had."""
    former: Any = read(file)
    for message in template:
        known = former.get(message.id)
        message.string = known.string if known else ""
        message.flags = known.flags & {"fuzzy"} if known else set()
    text = io.BytesIO()
    write_po(text, template, width=0, omit_header=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(HEADER + text.getvalue().decode().strip() + "\n", encoding="utf-8")
    if not template:
        file.unlink()


def target(name: str, raw: str, text: str, *_: Any) -> tuple[list[nodes.Node], list[nodes.Node]]:
    """Parse a role of Sphinx as a reference to its target."""
    return [nodes.reference(raw, text, refuri=f"{name}:{text.split('<')[-1].rstrip('>')}")], []


def markup(text: Any) -> Counter[str]:
    """Count the inline markup that docutils finds: literals, targets, and kinds of the rest."""
    for name in ("doc", "ref"):
        roles.register_local_role(name, target)
    # In a title, nothing that the text begins with makes a list or an option of it.
    title = f"{text}\n{'=' * 2 * len(text)}"
    inline = publish_doctree(title, settings_overrides={"report_level": 5}).findall(nodes.Inline)
    return Counter(
        f"``{node.astext()}``" if node.tagname == "literal" else node.get("refuri", node.tagname)
        for node in inline
    )


def faults(template: Catalog, catalog: Catalog) -> Iterator[str]:
    """Name what a translation lacks, and what it has in excess."""
    for message in template:
        known = catalog.get(message.id)
        if message.id and (known is None or not known.string or known.fuzzy):
            yield f"{'missing' if known is None else 'empty or fuzzy'}: {message.id}"
        elif known and (was := markup(message.id)) != (now := markup(known.string)):
            yield f"markup {[*(was - now)]} became {[*(now - was)]}: {message.id}"
    gone = [message for message in catalog if message.id and message.id not in template]
    yield from (f"obsolete: {message.id}" for message in [*gone, *catalog.obsolete.values()])


if __name__ == "__main__":
    if sys.argv[1:] not in (["--update"], ["--check"]):
        sys.exit(__doc__)
    wrong: list[str] = []
    for file, template in sorted(templates().items()):
        if sys.argv[1] == "--update":
            update(file, template)
        else:
            first = islice(faults(template, read(file)), SHOWN)
            wrong += (f"{file.relative_to(SOURCE)}: {fault}" for fault in first)
    sys.exit("\n".join(wrong) or None)
