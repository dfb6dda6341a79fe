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

"""``kongming-manage broker ...``: RabbitMQ's permissions, and the keys that sign calls."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
import shlex
from typing import Any, TextIO

from cliff.command import Command
from cliff.formatters import base

from kongming import exception
from kongming.allocation.host_name import HostName
from kongming.bus import permissions
from kongming.bus.permissions import Permissions
from kongming.conf.notification_handler import TOPICS, VERSIONED
from kongming.manage.command import conf_of
from kongming.rpc import keys
from kongming.terminal.output import Lister

_STANDALONE = "standalone"
_NOTIFICATION = "notification"
_VHOSTS = {_STANDALONE: "kongming", _NOTIFICATION: "/"}
_EXCHANGES = {_STANDALONE: "kongming", _NOTIFICATION: "nova"}
_COLUMNS = ("user", "vhost", "configure", "write", "read", "exchange", "topic_write", "topic_read")


class BrokerPermissions(Lister):
    """Show the RabbitMQ permissions that the users of API, conductors and compute hosts need.

    By default as commands for a shell on a RabbitMQ node; the users and the virtual host must
    exist. Each compute host has its own user.
    """

    @property
    def formatter_namespace(self) -> str:
        return "kongming.manage.rabbitmqctl"

    @property
    def formatter_default(self) -> str:
        return "rabbitmqctl"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--trigger",
            choices=[_STANDALONE, _NOTIFICATION],
            default=_STANDALONE,
            help="standalone: for API, conductors and kongming-executor; notification: for "
            "kongming-notification-handler (default: standalone)",
        )
        parser.add_argument(
            "--vhost",
            metavar="VHOST",
            help="the virtual host (default: kongming, and / for notification)",
        )
        parser.add_argument(
            "--exchange",
            metavar="NAME",
            help="[DEFAULT] control_exchange of kongming.conf, or Nova's for notification "
            "(default: kongming, and nova for notification)",
        )
        parser.add_argument(
            "--topic",
            metavar="NAME",
            action="append",
            help="for notification: [notification_handler] topics; may be given more than once "
            f"(default: {TOPICS[VERSIONED]})",
        )
        parser.add_argument(
            "--prefix",
            metavar="TEXT",
            default="kongming",
            help="the user of API and conductors; the user of a host is this name, a dash and the "
            "host's name (default: kongming)",
        )
        parser.add_argument(
            "hosts",
            metavar="HOST",
            nargs="+",
            type=host,
            help="a compute host: [DEFAULT] host of its kongming.conf",
        )
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        vhost = parsed_args.vhost or _VHOSTS[parsed_args.trigger]
        return _COLUMNS, [_row(vhost, each) for each in _permissions(parsed_args)]


def _permissions(parsed: argparse.Namespace) -> list[Permissions]:
    exchange = parsed.exchange or _EXCHANGES[parsed.trigger]
    users = {name: f"{parsed.prefix}-{name}" for name in parsed.hosts}
    if parsed.trigger == _NOTIFICATION:
        topics = tuple(parsed.topic or [TOPICS[VERSIONED]])
        return [
            permissions.of_notification_handler(user, name, exchange, topics)
            for name, user in users.items()
        ]
    return [
        permissions.of_controllers(parsed.prefix, exchange),
        *(permissions.of_executor(user, name, exchange) for name, user in users.items()),
    ]


def _row(vhost: str, of: Permissions) -> tuple[Any, ...]:
    values = {"vhost": vhost, **{name: getattr(of, name, None) for name in _COLUMNS[2:]}}
    return (of.user, *(values[name] for name in _COLUMNS[1:]))


class RabbitmqctlFormatter(base.ListFormatter):
    """Writes permissions as the commands that set them."""

    def add_argument_group(self, parser: argparse.ArgumentParser) -> None:
        """Add nothing: the formatter has no options."""

    def emit_list(
        self,
        column_names: Sequence[str],
        data: Iterable[Sequence[Any]],
        stdout: TextIO,
        parsed_args: argparse.Namespace,
    ) -> None:
        if tuple(column_names) != _COLUMNS:
            raise exception.ConfigInvalid(
                "-c needs another format (-f): the shell commands need all columns"
            )
        for values in data:
            row = dict(zip(column_names, values, strict=True))
            _write(stdout, row, "set_permissions", "configure", "write", "read")
            if row["exchange"] is None:
                # Permissions of an earlier command would still apply.
                _write(stdout, row, "clear_topic_permissions")
            else:
                _write(
                    stdout, row, "set_topic_permissions", "exchange", "topic_write", "topic_read"
                )


def _write(stdout: TextIO, row: dict[str, Any], command: str, *names: str) -> None:
    words = ["rabbitmqctl", command, "-p", row["vhost"], row["user"]]
    stdout.write(f"{shlex.join([*words, *(row[name] for name in names)])}\n")


class BrokerKeyCreate(Command):
    """Create a master key, for the [rpc] key_file of API and conductors."""

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        self.app.stdout.write(f"{keys.written(keys.new_master())}\n")


class BrokerKeyDerive(Command):
    """Derive the key of a compute host, for its [rpc] key_file, from this machine's master key."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "host",
            metavar="HOST",
            type=host,
            help="the compute host: [DEFAULT] host of its kongming.conf",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        path = conf_of(self).rpc.key_file
        if not path:
            raise exception.ConfigInvalid(
                "[rpc] key_file is not set: run this on a controller, or name its kongming.conf "
                "by --config-file"
            )
        for key in keys.read(path, None).of(parsed_args.host):
            self.app.stdout.write(f"{keys.written(key, parsed_args.host)}\n")


def host(text: str) -> str:
    """Read the name of a host, for argparse."""
    try:
        return HostName()(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a host name: {error}") from None
