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

"""``kongming-manage db ...``: the tables of the API and the conductors."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
import time
from typing import Any

from cliff.command import Command

from kongming import exception
from kongming.db import connecting, migration
from kongming.db.database import Database
from kongming.db.purge import purge
from kongming.manage.command import VERSION_OF_TABLES, conf_of
from kongming.terminal.output import ShowOne

_Columns = tuple[Sequence[str], Iterable[Any]]

_DAY_S = 86_400


class DbSync(ShowOne):
    """Create the tables, or migrate them to the version that this Kongming requires.

    Run it once after each installation of a new version, before the API and the conductors are
    started. It does nothing if the tables are up to date.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "target",
            metavar="<version>",
            nargs="?",
            help="migrate to this version, up or down (before an older Kongming is installed); "
            "'base' drops all tables with their data. Default: the newest.",
        )
        parser.add_argument(
            VERSION_OF_TABLES, metavar="<version>", help="the same; also written --version."
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> _Columns:
        named = [each for each in (parsed_args.target, parsed_args.version_of_tables) if each]
        if len(set(named)) > 1:
            raise exception.ConfigInvalid(f"db sync: {' and '.join(named)}: name one version")
        with _database(self, patient=True) as database:
            before, after = migration.sync(database, *named[:1])
        return ("before", "after"), (before or "", after or "")


class DbVersion(ShowOne):
    """Show the version of the tables, and the version that this Kongming requires."""

    def take_action(self, parsed_args: argparse.Namespace) -> _Columns:
        with _database(self) as database:
            there = migration.version(database)
        return ("version", "needed"), (there or "", migration.versions()[-1])


class DbPurge(ShowOne):
    """Delete history older than a number of days, and hosts without a heartbeat for as long."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--days", metavar="N", type=_days, required=True, help="the number of days to keep"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> _Columns:
        with _database(self) as database:
            database.check_schema()
            return self.dict2columns(purge(database, time.time() - parsed_args.days * _DAY_S))


@contextmanager
def _database(command: Command, *, patient: bool = False) -> Iterator[Database]:
    limits = connecting.MAINTENANCE if patient else connecting.SERVICE
    database = Database(conf_of(command), limits)
    try:
        yield database
    finally:
        database.close()


def _days(value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of days, such as 90")
    return int(value)
