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
"""What the commands have in common: the client, and how they end."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any, cast

from osc_lib.command import command

from kongming.manage import options
from kongming.manage.output import EscapedOutput
from kongming.osc import waiting
from kongming.osc.client import Client

Fields = tuple[Sequence[str], Iterable[Any]]
Table = tuple[Sequence[str], Iterable[Sequence[Any]]]


def client_of(asked: command.Command) -> Client:
    """Give the client that a command is to use."""
    manager: Any = asked.app.client_manager
    return cast(Client, manager.kongming)


def limit(text: str) -> int:
    """Read how many entries to show, for argparse."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def generation(text: str) -> int:
    """Read a generation, for argparse."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a generation: a whole number")
    return int(text)


def add_generation(parser: argparse.ArgumentParser, *, absent: bool) -> None:
    """Add ``--generation``.

    :param absent: whether 0 means anything: that there must be none.
    """
    zero = "; 0 if there must be none" if absent else ""
    parser.add_argument(
        "--generation",
        metavar="<number>",
        type=generation,
        help=f"Refuse if what is wanted has another generation by now{zero}.",
    )


def add_limit(parser: argparse.ArgumentParser) -> None:
    """Add ``--limit``."""
    parser.add_argument(
        "--limit", metavar="<number>", type=limit, help="How many to show at most (default: all)."
    )


class OfInstance(command.Command):
    """A command about one instance."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            "instance_uuid",
            metavar="<instance>",
            type=options.instance_uuid,
            help="The instance's UUID.",
        )
        return parser


class Lister(EscapedOutput, command.Lister):
    """A command that shows rows."""


class ShowOne(EscapedOutput, command.ShowOne):
    """A command that shows the fields of one thing."""


class Change(ShowOne):
    """A command that changes what is wanted, and may wait for what comes of it.

    What it shows is written in any case; the exit status says whether all
    was done.
    """

    timeout = 300.0
    _status = 0

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        waiting.add_options(parser, self.timeout)
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Run it, and give the exit status."""
        return super().run(parsed_args) or self._status

    def waiter(self, parsed: argparse.Namespace) -> waiting.Waiter:
        """Give what waits for as long as was asked for."""
        return waiting.Waiter(self.app.stderr, parsed.timeout)

    def ended(self, outcome: waiting.Outcome) -> waiting.Allocations:
        """Take the exit status from what came of waiting, and give the allocations."""
        self._status = outcome.status
        return outcome.allocations
