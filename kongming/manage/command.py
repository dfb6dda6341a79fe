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

"""The configuration of all commands, read at its first use."""

from __future__ import annotations

from typing import Protocol

from cliff.command import Command
from oslo_config import cfg

#: The meaning of ``--version`` after the name of a command.
VERSION_OF_TABLES = "--version-of-tables"


class Configured(Protocol):
    """The part of the application that commands use."""

    @property
    def conf(self) -> cfg.ConfigOpts: ...


def conf_of(command: Command) -> cfg.ConfigOpts:
    """Return the configuration for a command.

    :raises ConfigInvalid: if it can't be read.
    """
    app: Configured = command.app  # type: ignore[assignment]
    return app.conf
