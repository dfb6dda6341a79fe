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

"""Nova's own configuration on this host, as far as it concerns us."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from oslo_config import cfg

from kongming import exception


def read(paths: Iterable[str], options: Mapping[Any, Iterable[Any]]) -> cfg.ConfigOpts:
    """Read as Nova would: files and folders in their order, the last one wins.

    :param options: the options that are wanted, by group.
    :raises ConfigInvalid: if that can't be read. It quotes no line of the
        files: there are passwords in them.
    """
    arguments = []
    nova = cfg.ConfigOpts()
    for group, wanted in options.items():
        nova.register_opts(list(wanted), group=group)
    try:
        for path in paths:
            folder = Path(path).is_dir()
            if folder:
                # oslo.config takes a folder that it may not enter for an empty one.
                next(Path(path).iterdir(), None)
            arguments.append(f"--config-{'dir' if folder else 'file'}={path}")
        # Neither this machine's own defaults nor our environment are Nova's.
        nova(arguments, default_config_files=[], default_config_dirs=[], use_env=False)
    except (cfg.Error, OSError, ValueError) as error:
        # The cause is left out, too: it may quote a line.
        raise exception.ConfigInvalid(
            f"{', '.join(paths)} can't be read: {problem(error)}; check the paths, and that this "
            "user may read them"
        ) from None
    return nova


def problem(error: Exception) -> str:
    """Say what is wrong with a configuration, without quoting it."""
    if isinstance(error, cfg.ConfigFileParseError):
        line = getattr(error.__context__, "lineno", "unknown")
        return f"{error.config_file} is no configuration file: see its line {line}"
    return " ".join(str(error).split())
