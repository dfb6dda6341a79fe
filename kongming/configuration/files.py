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

"""The settings of the configuration files, with their lines, and the problems of these files."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
import contextlib
from dataclasses import dataclass, field
import grp
import io
from pathlib import Path
import re

from oslo_config import cfg

from kongming import exception
from kongming.runtime.users import user, user_group

#: The section of options without a group.
DEFAULT = "DEFAULT"
_OPTION = re.compile(r"\[([\w.-]+)\](?: ([\w-]+))?")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ASSIGNMENT = re.compile(r"([^:=]*)[:=](.*)")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of an option in a file.

    :ivar section: the group of the option, in oslo.config's spelling.
    :ivar value: the first line of the value, which may contain a password.
    """

    path: str
    line: int
    section: str
    name: str
    value: str = field(repr=False)

    @property
    def place(self) -> str:
        """Its file and line."""
        return f"{self.path}, line {self.line}"


def find(argv: Sequence[str], project: str) -> list[str]:
    """Return the files that a command line names, or else the default ones that exist.

    :raises ConfigInvalid: if a folder of files can't be read.
    """
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    # In the order of the command line: later ones take precedence.
    parser.add_argument("--config-file", dest="named", action="append", type=_File)
    parser.add_argument("--config-dir", dest="named", action="append", type=_Folder)
    try:
        named = parser.parse_known_args(list(argv))[0].named or []
    except argparse.ArgumentError:
        # oslo.config reports problems of the command line.
        named = []
    if not any(isinstance(each, _File) for each in named):
        named = [*map(_File, cfg.find_config_files(project)), *named]
    if not any(isinstance(each, _Folder) for each in named):
        named = [*named, *map(_Folder, cfg.find_config_dirs(project))]
    return [path for each in named for path in each.paths()]


def read(paths: Iterable[str]) -> list[Setting]:
    """Read files, the last of which takes precedence.

    :raises ConfigInvalid: naming file and line, without quoting it: it may contain a password.
    """
    return [setting for path in paths for setting in _settings(path, _text(path))]


def located(problem: str, settings: Sequence[Setting]) -> str:
    """Add file and line to a text that begins with an option."""
    named = _OPTION.match(problem)
    if named is None:
        return problem
    section, name = named[1], (named[2] or "").replace("-", "_")
    for setting in reversed(settings):
        if setting.section == section and setting.name.replace("-", "_") == name:
            return f"{problem} ({setting.place})"
    paths = dict.fromkeys(each.path for each in settings)
    return f"{problem} ({', '.join(paths) or 'no configuration file was found'})"


@dataclass(frozen=True, slots=True)
class _File:
    path: str

    def paths(self) -> list[str]:
        return [str(Path(self.path).expanduser().absolute())]


@dataclass(frozen=True, slots=True)
class _Folder:
    path: str

    def paths(self) -> list[str]:
        try:
            # oslo.config treats a folder without permission as empty.
            inside = list(Path(self.path).expanduser().iterdir())
        except OSError as error:
            raise _unreadable(self.path, error) from None
        return sorted(str(each.absolute()) for each in inside if each.match("[!.]*.conf"))


def _text(path: str) -> str:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None
    if content.startswith(_BYTE_ORDER_MARK):
        raise exception.ConfigInvalid(
            f"{path}, line 1: the file begins with a byte order mark; save it without"
        )
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise exception.ConfigInvalid(
            f"{path}, line {line}: the byte 0x{content[error.start]:02x} is not UTF-8; save the "
            "file as UTF-8"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise exception.ConfigInvalid(f"{path}, line {line}: there is a NUL byte; remove it")
    return text


def _unreadable(path: str, error: OSError) -> exception.ConfigInvalid:
    return exception.ConfigInvalid(
        f"{path} can't be read by user {user()}: {error.strerror or type(error).__name__}"
        f"{_hint(path) if isinstance(error, PermissionError) else ''}"
    )


def _hint(path: str) -> str:
    """Return the way out if this user may not read a file, or its folder."""
    for part in (Path(path), *Path(path).parents):
        with contextlib.suppress(OSError, KeyError):
            name = grp.getgrgid(group := part.stat().st_gid).gr_name
            if group:
                return (
                    f"; it is for group {name}: run this command as a user of that group, as in "
                    f"'sudo -u {name} ...'"
                )
            break
    own = user_group()
    return f"; run 'chgrp {own} {path}' and 'chmod 0640 {path}', likewise 0750 for its folder"


def _settings(path: str, text: str) -> Iterator[Setting]:
    """Yield the settings that oslo.config finds, and refuse what it refuses."""
    section = ""
    continued = False
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        line = line.rstrip()
        if line.startswith((" ", "\t")):
            _require(continued, path, number, "an indented line must continue an option")
            continue
        continued = False
        if not line or line.startswith(("#", ";")):
            continue
        if line.startswith("["):
            _require(line.endswith("]"), path, number, "the line of a section must end with ]")
            section = line[1:-1]
            _require(bool(section), path, number, "a section must have a name")
            continue
        found = _ASSIGNMENT.fullmatch(line)
        _require(found is not None, path, number, "an option must be written as 'name = value'")
        _require(bool(section), path, number, "an option must be in a section, such as [DEFAULT]")
        continued = True
        if found is not None:
            name = found[1].strip()
            _require(bool(name), path, number, "an option must have a name before the =")
            group = section if section == DEFAULT else section.lower()
            yield Setting(path, number, group, name, found[2].strip())


def _require(fulfilled: bool, path: str, line: int, rule: str) -> None:
    if not fulfilled:
        raise exception.ConfigInvalid(f"{path}, line {line}: {rule}")
