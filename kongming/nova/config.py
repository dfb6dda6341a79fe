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

"""Nova's configuration on this host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import contextlib
from pathlib import Path
from typing import Any

from oslo_config import cfg
from oslo_utils import netutils

from kongming import exception


def read(paths: Iterable[str], options: Mapping[Any, Iterable[Any]]) -> cfg.ConfigOpts:
    """Read files and folders as Nova does, the last one takes precedence.

    :param options: the options to read, by group.
    :raises ConfigInvalid: if they can't be read. It quotes no line of the files, which contain
        passwords.
    """
    arguments = []
    nova = cfg.ConfigOpts()
    for group, each in options.items():
        nova.register_opts(list(each), group=group)
    try:
        for path in paths:
            folder = Path(path).is_dir()
            if folder:
                # oslo.config treats a folder without permission as empty.
                next(Path(path).iterdir(), None)
            arguments.append(f"--config-{'dir' if folder else 'file'}={path}")
        # Default files and environment of this process are not Nova's.
        nova(arguments, default_config_files=[], default_config_dirs=[], use_env=False)
        _register_substituted(nova, paths)
        _check_substituted(nova, options)
    except (cfg.Error, OSError, ValueError) as error:
        # Without the cause, which may quote a line.
        raise exception.ConfigInvalid(
            f"{', '.join(paths)} can't be read: {problem(error)}; check the paths, and that this "
            "user may read them"
        ) from None
    return nova


def _register_substituted(nova: cfg.ConfigOpts, paths: Iterable[str]) -> None:
    """Register all options that are set, as values may refer to them."""
    nova.register_opt(cfg.StrOpt("my_ip", default=netutils.get_my_ipv4()))
    sections: dict[str, dict[str, list[str]]] = {}
    for path in paths:
        folder = Path(path)
        for file in sorted(folder.glob("*.conf")) if folder.is_dir() else [folder]:
            cfg.ConfigParser(str(file), sections).parse()
    for group, found in sections.items():
        for name in found:
            # The options to read are registered already, with their types.
            with contextlib.suppress(cfg.DuplicateOptError):
                nova.register_opt(cfg.StrOpt(name), group=None if group == "DEFAULT" else group)


def _check_substituted(nova: cfg.ConfigOpts, options: Mapping[Any, Iterable[Any]]) -> None:
    for group, each in options.items():
        for option in each:
            try:
                getattr(nova if group is None else nova[group], option.dest)
            except (cfg.NoSuchOptError, cfg.TemplateSubstitutionError):
                raise ValueError(
                    f"[{group or 'DEFAULT'}] {option.name} refers to an option that is not set in "
                    "these files"
                ) from None


def problem(error: Exception) -> str:
    """Describe an error of a configuration, without quoting a line."""
    if isinstance(error, cfg.ConfigFileParseError):
        line = getattr(error.__context__, "lineno", "unknown")
        return f"{error.config_file} is not a configuration file: see its line {line}"
    return " ".join(str(error).split())
