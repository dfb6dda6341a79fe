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

"""Settings of kongming.conf that no service reads, such as misspelt names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
import difflib
import re

from kongming.configuration.files import Setting

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_LIKE = 0.7


def unread(
    settings: Iterable[Setting],
    known: Mapping[str, Collection[str]],
    elsewhere: Collection[str],
    idle: Mapping[str, str],
) -> Iterator[str]:
    """Yield the settings that no service reads, each with the option that may be meant.

    :param known: the names of the options of each section.
    :param elsewhere: the sections that another service reads.
    :param idle: sections with options that are not read, with the explanation.
    """
    for setting in settings:
        if setting.section in elsewhere:
            continue
        if setting.name not in known.get(setting.section, ()):
            there = {setting.section: known[setting.section]} if setting.section in idle else known
            why = idle.get(setting.section, "which is not an option")
            yield f"{_named(setting, there, why)} ({setting.place})"


def _named(setting: Setting, known: Mapping[str, Collection[str]], why: str) -> str:
    meant = _meant(setting, known)
    shown = f"[{_shown(setting.section)}] {_shown(setting.name, likely=meant is not None)}"
    if meant is not None:
        return f"{shown}, did you mean [{meant[0]}] {meant[1]}?"
    return f"{shown}, {why}"


def _shown(name: str, *, likely: bool = False) -> str:
    """Return a name, or … if it can't be one: it may be a part of a password."""
    return name if _NAME.fullmatch(name.lower() if likely or name == "DEFAULT" else name) else "…"


def _meant(setting: Setting, known: Mapping[str, Collection[str]]) -> tuple[str, str] | None:
    """Return section and name of the most similar option; None if none is similar."""
    sections = difflib.get_close_matches(setting.section, known, n=1, cutoff=_LIKE)
    if setting.section.upper() == "DEFAULT":
        sections = ["DEFAULT"]
    here = sections[0] if sections else ""
    name = setting.name.lower().replace("-", "_")
    if name in known.get(here, ()):
        return here, name
    homes = [section for section, names in known.items() if name in names]
    if homes:
        return homes[0], name
    for places in ([here], known):
        near = {each: section for section in places for each in known.get(section, ())}
        found = difflib.get_close_matches(name, near, n=1, cutoff=_LIKE)
        if found:
            return near[found[0]], found[0]
    return None
