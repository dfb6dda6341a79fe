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

"""The commands of kongming-manage; each is imported only when it is needed."""

from __future__ import annotations

import argparse
from importlib.metadata import EntryPoint, entry_points

from cliff.command import Command
from cliff.commandmanager import CommandManager

from kongming import exception
from kongming.runtime import extras


class Commands(CommandManager):
    """The commands of an entry point group.

    cliff's own class imports all of them at once, and reports those that can't be imported: on a
    controller those for libvirt, on a compute host those for the database.
    """

    def load_commands(self, namespace: str) -> None:
        """Find the commands of a group without importing them."""
        self.group_list.append(namespace)
        for each in entry_points(group=namespace):
            self.commands[each.name.replace("_", " ")] = _Found(each)  # type: ignore[assignment]


class _Found:
    """A command that was found."""

    def __init__(self, entry_point: EntryPoint) -> None:
        self.name, self.value = entry_point.name, entry_point.value
        self._entry_point = entry_point

    def load(self) -> type[Command]:
        """Import the command; one that says what to install, if a package is missing."""
        try:
            command: type[Command] = self._entry_point.load()
        except ModuleNotFoundError as error:
            return _unavailable(extras.missing(error))
        return command


def _unavailable(problem: str) -> type[Command]:
    class Unavailable(Command):
        """Not available on this machine."""

        def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
            # Options are arguments, too: whatever they are, the problem is reported.
            parser = argparse.ArgumentParser(prog_name, prefix_chars="\0", add_help=False)
            parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
            return parser

        def take_action(self, _parsed_args: argparse.Namespace) -> None:
            raise exception.KongmingError(problem)

    return Unavailable
