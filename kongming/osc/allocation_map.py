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
"""``openstack kongming allocation map ...``: many allocations, handed over together."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any
import uuid

from osc_lib import exceptions
from osc_lib.command import command

from kongming import schema
from kongming.core_schema import Steps
from kongming.cpuset import shown
from kongming.manage import files
from kongming.manage.files import Document
from kongming.osc import columns, waiting
from kongming.osc.client import Client
from kongming.osc.command import (
    Change,
    Fields,
    Lister,
    ShowOne,
    Table,
    add_generation,
    add_limit,
    client_of,
)
from kongming.osc.waiting import Allocations

_FIELD = "allocations"
_COLUMNS = ("name", "generation", "deleting", "instances", "created_at", "updated_at")


class _OfMap(command.Command):
    """A command about one allocation map."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="<name>", help="The name of the allocation map.")
        return parser


class MapList(Lister):
    """List the allocation maps."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        add_limit(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        found = client_of(self).maps(parsed_args.limit)
        return _COLUMNS, [columns.rows(_COLUMNS, each) for each in found]


class MapShow(_OfMap, ShowOne):
    """Show an allocation map, and what came of its allocations."""

    def take_action(self, parsed_args: argparse.Namespace) -> Fields:
        return self.dict2columns(columns.of_map(client_of(self).map(parsed_args.name)))


class MapApply(_OfMap, Change):
    """Want the allocations of a map; instances that it does not name any more are released.

    The file is read and checked as a whole before anything is sent.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "file",
            metavar="<file>",
            help='JSON or YAML: {"allocations": {instance: allocation, ...}}, or only what is in '
            "there. - is the standard input.",
        )
        add_generation(parser, absent=True)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Fields:
        asked = read(parsed_args.file)
        client, name = client_of(self), parsed_args.name
        told = client.apply_map(name, asked, parsed_args.generation)
        if parsed_args.wait:
            seen = self.ended(self.waiter(parsed_args).settled(lambda: client.map(name)[_FIELD]))
            told |= {
                "counts": waiting.counts(seen),
                "not_applied": columns.not_applied(seen),
            }
        return self.dict2columns(columns.of_map(told))


class MapDelete(_OfMap, Change):
    """Release all instances of a map: they go back to their baseline; then it is gone."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_generation(parser, absent=False)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Fields:
        client, name = client_of(self), parsed_args.name
        told = client.delete_map(name, parsed_args.generation)
        if told is not None and parsed_args.wait:
            outcome = self.waiter(parsed_args).released(
                lambda: _not_released(client, name), told["instances"]
            )
            left = self.ended(outcome)
            told = told | {"not_released": columns.Outcomes(list(left))} if self._status else None
        if told is None:
            return self.dict2columns({"name": name, "status": "released"})
        return self.dict2columns(columns.of_map(told))


def read(path: str) -> dict[str, Any]:
    """Read the allocations of a map, in their JSON form.

    :param path: ``-`` is the standard input.
    :raises RequestInvalid: naming the place.
    """
    document = files.load(path)
    written: object = document.value
    within: Steps = ()
    if isinstance(written, Mapping) and _FIELD in written:
        if unknown := sorted(written.keys() - {_FIELD}):
            raise document.refusal(
                (unknown[0],),
                f"{shown(unknown[0])} is unknown beside {_FIELD}; a generation is given with "
                "--generation",
            )
        written, within = written[_FIELD], (_FIELD,)
    if not isinstance(written, Mapping):
        what = ".".join(map(str, within)) or "the map"
        raise document.refusal(
            within, f"{what} is not an object of which each name is an instance"
        )
    return dict(_entry(document, (*within, name), each) for name, each in written.items())


def _entry(document: Document, steps: Steps, value: object) -> tuple[str, dict[str, Any]]:
    name = str(steps[-1])
    where = ".".join([*map(str, steps[:-1]), ""])
    try:
        wellformed = str(uuid.UUID(name)) == name
    except ValueError:
        wellformed = False
    if not wellformed:
        raise document.refusal(
            steps, f"{where}{shown(name)} is not the UUID of an instance as Nova writes it"
        )
    try:
        return name, schema.read(value).to_json()
    except schema.AllocationInvalid as error:
        raise document.refusal((*steps, *error.steps), f"{where}{name}: {error}") from error


def _not_released(client: Client, name: str) -> Allocations:
    try:
        found: Allocations = client.map(name)[_FIELD]
    except exceptions.NotFound:
        return []
    return found
