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

"""The systemd unit of a service on this machine: its user, and its program."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

SERVICES = (
    "kongming-notification-handler",
    "kongming-executor",
    "kongming-conductor",
    "kongming-api",
)
# systemd's folders for units: it uses the first unit that it finds, and all drop-ins.
_FOLDERS = (
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)
_LISTS = ("SupplementaryGroups", "AmbientCapabilities")
# Possible prefixes of the program; see systemd.service(5).
_PREFIXES = "@-:+!"


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit's settings for the process that it starts.

    :ivar capabilities: those of the process, in the names of capabilities(7).
    :ivar program: empty if it names none.
    """

    name: str
    user: str
    groups: tuple[str, ...]
    capabilities: tuple[str, ...]
    program: str


def services(root: Path) -> list[str]:
    """Return the services that have an enabled unit here, or else those that have a unit."""
    there = [name for name in SERVICES if _unit_files(root, f"{name}.service")]
    enabled = [
        name for name in there if any(root.glob(f"etc/systemd/system/*.wants/{name}.service"))
    ]
    return enabled or there


def installed(root: Path, among: Collection[str] = SERVICES) -> Unit | None:
    """Return the unit of this machine's service; None if there is none.

    If there are several, it is the first one that is enabled, in the order of :data:`SERVICES`.

    :param among: the services in question.
    """
    for name in services(root):
        if name in among:
            return _read(root, name)
    return None


def _read(root: Path, name: str) -> Unit:
    found: dict[str, str] = {}
    for path in _unit_files(root, f"{name}.service"):
        for key, value in _settings(path):
            listed = key in _LISTS and value
            found[key] = f"{found.get(key, '')} {value}" if listed else value
    return Unit(
        f"{name}.service",
        found.get("User") or "root",
        tuple(found.get("SupplementaryGroups", "").split()),
        tuple(found.get("AmbientCapabilities", "").split()),
        (found.get("ExecStart", "").split() or [""])[0].lstrip(_PREFIXES),
    )


def _unit_files(root: Path, name: str) -> list[Path]:
    """Return the files of a unit in their order of precedence; none if it does not exist."""
    units = [root / folder / name for folder in _FOLDERS if (root / folder / name).is_file()]
    drop_ins: dict[str, Path] = {}
    for folder in reversed(_FOLDERS):
        drop_ins |= {path.name: path for path in (root / folder / f"{name}.d").glob("*.conf")}
    return [units[0], *(drop_ins[each] for each in sorted(drop_ins))] if units else []


def _settings(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the settings of the section Service; nothing if the file can't be read."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    section = ""
    for line in text.replace("\\\n", " ").splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and line[0] not in "#;":
            key, _, value = line.partition("=")
            yield key.strip(), value.strip()
