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

"""kongming-manage: commands for operators on a compute host."""

from __future__ import annotations

import argparse
import functools
import logging
import re
import signal
import sys
from typing import Any

from cliff.app import App
from cliff.command import Command
from oslo_config import cfg

from kongming import conf as kongming_conf
from kongming import exception, version
from kongming.conf import database, opts
from kongming.configuration import files, values
from kongming.manage.command import VERSION_OF_TABLES
from kongming.manage.commands import Commands
from kongming.runtime import streams

NAME = "kongming-manage"

_WRONG_USE = 2
_VERSION = re.compile(r"^--version(?==|$)")


class Manage(App):
    """The application: it runs a command, and writes each problem as one line on stderr."""

    NAME = NAME
    LOG = logging.getLogger(NAME)
    CONSOLE_MESSAGE_FORMAT = f"{NAME}: %(message)s"
    # Warnings and errors; -v logs more.
    DEFAULT_VERBOSE_LEVEL = 0

    def __init__(self) -> None:
        super().__init__(
            description="Inspect this host and its guests as Kongming sees them.",
            version=version.release(),
            command_manager=Commands("kongming.manage"),
            deferred_help=True,
        )
        self._error: BaseException | None = None

    def build_option_parser(
        self,
        description: str | None,
        version: str | None,
        argparse_kwargs: dict[str, Any] | None = None,
    ) -> argparse.ArgumentParser:
        """Add the options that services have, too."""
        parser = super().build_option_parser(
            description, version, {"prog": NAME, **(argparse_kwargs or {})}
        )
        parser.add_argument(
            "--config-file",
            metavar="PATH",
            action="append",
            default=[],
            help="Configuration file; may be repeated, later files take precedence. Default: "
            "kongming.conf and kongming-manage.conf in the directories where services look "
            "for their files.",
        )
        parser.add_argument(
            "--config-dir",
            metavar="DIR",
            action="append",
            default=[],
            help="Directory of configuration files (*.conf), read after the files.",
        )
        return parser

    @functools.cached_property
    def conf(self) -> cfg.ConfigOpts:
        """The configuration, read when a command needs it.

        :raises ConfigInvalid: if it can't be read.
        """
        conf = cfg.ConfigOpts()
        kongming_conf.register_opts(conf)
        arguments = [f"--config-file={path}" for path in self.options.config_file]
        arguments += [f"--config-dir={path}" for path in self.options.config_dir]
        settings = files.read(files.find(arguments, "kongming"))
        conf(arguments, project="kongming", prog=NAME, version=version.release())
        for group, options in (*opts.own_opts(), (database.GROUP, database.OPTS)):
            for problem in values.problems(conf, group or files.DEFAULT, options):
                raise exception.ConfigInvalid(files.located(problem, settings))
        return conf

    def interact(self) -> None:
        """Refuse to start without a command."""
        self._error = argparse.ArgumentError(None, "no command")
        self.LOG.error("no command given; '%s --help' lists all commands", NAME)

    def run_subcommand(self, argv: list[str]) -> int:
        """Run a command, or name similar ones."""
        try:
            self.command_manager.find_command(argv)
        except ValueError:
            resembling = ", ".join(f"'{name}'" for name in self.get_fuzzy_matches(argv[0]))
            self.LOG.error(
                "'%s' is not a command; did you mean %s? '%s --help' lists all commands",
                " ".join(argv),
                resembling or "another",
                NAME,
            )
            return _WRONG_USE
        return super().run_subcommand(argv)

    def clean_up(self, cmd: Command, result: int, err: BaseException | None) -> None:
        """Keep the error, for the exit status."""
        self._error = err

    def run(self, argv: list[str]) -> int:
        """Run a command and return the exit status."""
        status = super().run(_of_command(argv))
        wrong_use = isinstance(self._error, exception.ConfigInvalid | argparse.ArgumentError)
        return _WRONG_USE if wrong_use else status


def _of_command(argv: list[str]) -> list[str]:
    """Rename the ``--version`` of a command, which the application would take."""
    after = argv.index("sync") + 1 if "sync" in argv else len(argv)
    renamed = [_VERSION.sub(VERSION_OF_TABLES, each) for each in argv[after:]]
    return argv[:after] + renamed


def main() -> int:
    """Run one command; return 0, 1 if it failed, 2 if command or configuration is wrong."""
    # Python's handler would wait until a call of libvirt returns.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return streams.run(NAME, lambda: Manage().run(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
