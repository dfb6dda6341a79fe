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
"""The base of the commands: client, options and output."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
import contextlib
from contextlib import contextmanager
import errno
import io
import logging
import os
from typing import Any, TextIO, cast

from keystoneauth1 import exceptions as keystone
from osc_lib import exceptions
from osc_lib.command import command

from kongming.client import responses
from kongming.client.rest import RESPONSE_S, Client
from kongming.osc import instances
from kongming.terminal.output import EscapedOutput

Fields = tuple[Sequence[str], Iterable[Any]]
Table = tuple[Sequence[str], Iterable[Sequence[Any]]]


#: It logs each failure that it also raises.
_DISCOVERY = logging.getLogger("keystoneauth.identity.generic.base")


def client_of(caller: command.Command) -> Client:
    """Return the client for a command."""
    return cast(Client, manager_of(caller).kongming)


def manager_of(caller: Any) -> Any:
    """Return the client manager of osc_lib, authenticated.

    The commands authenticate by themselves, not before they run, so that a Keystone that can't
    be reached is one line.

    :raises Fault: if it can't be reached.
    """
    if not caller.auth_required:
        caller.auth_required = True
        try:
            with _without_warnings_before_an_error(_DISCOVERY):
                caller.app.prepare_to_run_command(caller)
        except (keystone.ConnectionError, keystone.DiscoveryFailure) as error:
            raise responses.of_exception(error, RESPONSE_S) from error
    return caller.app.client_manager


@contextmanager
def _without_warnings_before_an_error(logger: logging.Logger) -> Iterator[None]:
    held: list[logging.LogRecord] = []

    def hold(record: logging.LogRecord) -> bool:
        if record.levelno == logging.WARNING:
            held.append(record)
        return record.levelno != logging.WARNING

    logger.addFilter(hold)
    try:
        yield
    finally:
        logger.removeFilter(hold)
    for record in held:
        logger.handle(record)


def limit(text: str) -> int:
    """Read the maximum number of rows, for argparse."""
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

    :param absent: whether 0 is valid: «must not exist yet».
    """
    zero = "; 0: it must not exist yet" if absent else ""
    parser.add_argument(
        "--generation",
        metavar="<number>",
        type=generation,
        help=f"Fail unless this is the current generation{zero}.",
    )


def add_limit(parser: argparse.ArgumentParser) -> None:
    """Add ``--limit``."""
    parser.add_argument(
        "--limit",
        metavar="<number>",
        type=limit,
        help="The maximum number of rows (default: all).",
    )


class OfInstance(command.Command):
    """A command about one instance.

    :cvar several: whether it may be about several of them.
    """

    several = False
    auth_required = False

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            "instances",
            metavar="<instance>",
            nargs="+" if self.several else 1,
            help="The instance's name or UUID.",
        )
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Find the instances, and run the command."""
        manager = manager_of(self)
        found = (instances.find(manager, each) for each in parsed_args.instances)
        parsed_args.instances = list(dict.fromkeys(found))
        parsed_args.instance_uuid = parsed_args.instances[0]
        return int(super().run(parsed_args) or 0)


class _Output(EscapedOutput):
    """A command of the plug-in that writes cells.

    :ivar accepted: a message about the accepted request, for the error of a failed output.
    """

    accepted = ""
    auth_required = False

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Iterable[Any]
    ) -> int:
        """Write the cells with the formatter."""
        with writing(self.app, self.accepted):
            return super().produce_output(parsed_args, column_names, data)


class Lister(_Output, command.Lister):
    """A command of the plug-in that shows rows."""


class ShowOne(_Output, command.ShowOne):
    """A command of the plug-in that shows the fields of one object."""


@contextmanager
def writing(app: Any, accepted: str = "") -> Iterator[TextIO]:
    """Yield the standard output, and flush it.

    :param accepted: a message about the accepted request, for the error.
    :raises CommandError: if it can't be written.
    :raises BrokenPipeError: if the reader has closed it, which is no error of the command.
    """
    stdout: TextIO | None = app.stdout
    done = f"; {accepted}" if accepted else ""
    if stdout is None:
        raise exceptions.CommandError(f"the standard output is closed{done}")
    if isinstance(stdout, io.TextIOWrapper):
        # An encoding may lack a character.
        stdout.reconfigure(errors="backslashreplace")
    try:
        yield stdout
        stdout.flush()
    except BrokenPipeError:
        _discard(stdout)
        raise
    except OSError as error:
        _discard(stdout)
        why = os.strerror(error.errno or errno.EIO).lower()
        raise exceptions.CommandError(
            f"the standard output can't be written ({why}){done}"
        ) from error


def _discard(stdout: TextIO) -> None:
    """Discard the rest of the output: Python would flush it at its end, and fail."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stdout.fileno())
        os.close(null)
