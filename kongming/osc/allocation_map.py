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
"""``openstack kongming allocation map ...``: the allocations of many instances together."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
import sys
from typing import Any

from osc_lib.command import command

from kongming import exception
from kongming.client.responses import Fault
from kongming.client.watching import find_map
from kongming.osc import columns, map_changes, map_file
from kongming.osc.change import Change
from kongming.osc.command import (
    Fields,
    Lister,
    ShowOne,
    Table,
    add_generation,
    add_limit,
    client_of,
    writing,
)
from kongming.osc.map_changes import MapChanges
from kongming.osc.requests import ApplyMap, DeleteMap
from kongming.osc.waiting import Messages
from kongming.terminal import files

_COLUMNS = ("name", "generation", "deleting", "instances", "created_at", "updated_at")
_PLANNED = ("planned", "absent")


class _OfMap(command.Command):
    """A command about one allocation map."""

    auth_required = False

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="<name>", help="The name of the allocation map.")
        return parser


class MapList(Lister):
    """List the allocation maps."""

    empty = "no allocation map exists"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        add_limit(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        found = client_of(self).maps(parsed_args.limit)
        return _COLUMNS, [columns.row(_COLUMNS, each) for each in found]


class MapShow(_OfMap, ShowOne):
    """Show an allocation map and the status of its allocations."""

    def take_action(self, parsed_args: argparse.Namespace) -> Fields:
        return self.dict2columns(columns.of_map(client_of(self).map(parsed_args.name)))


class MapExport(_OfMap):
    """Write an allocation map in the form that ``map apply`` reads."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "-f",
            "--format",
            dest="form",
            choices=(map_file.YAML, map_file.JSON),
            default=map_file.YAML,
            help=f"The format of the file (default: {map_file.YAML}).",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        found = client_of(self).map(parsed_args.name)
        text = map_file.write(found, parsed_args.form)
        with writing(self.app) as stdout:
            stdout.write(text)
        Messages(self.app.stderr).print(
            f"the map {parsed_args.name} is exported with generation {found['generation']}: apply "
            f"it with --generation {found['generation']} so that it is refused if the map was "
            "changed meanwhile"
        )


class MapApply(_OfMap, Change):
    """Set the allocations of a map; release the instances that are no longer in it.

    The whole file is read and checked before anything is sent.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "file",
            metavar="<file>",
            help='JSON or YAML: {"allocations": {instance: allocation, ...}}, or only the inner '
            "object. - is the standard input.",
        )
        add_generation(parser, absent=True)
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="Show the instances that would be added, changed and released, and the plan of "
            "each instance's host; change nothing. Exits with 1 unless all would be accepted.",
        )
        parser.add_argument(
            "--allow-empty",
            action="store_true",
            help="Apply a file without instances, which releases all of the map, without "
            "confirmation.",
        )
        parser.add_argument(
            "--allow-large-release",
            action="store_true",
            help=f"Release more instances than stay, if {map_changes.MANY} or more, without "
            "confirmation.",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Fields:
        requested, name = map_file.read(parsed_args.file), parsed_args.name
        generation = parsed_args.generation
        current = find_map(self.client, name)
        changes = map_changes.of(current, requested)
        if parsed_args.dry_run:
            number = None if current is None else current["generation"]
            shown = columns.of_changes(name, number, changes)
            plans = self._plan(name, requested, generation)
            return self.dict2columns(shown | columns.of_plans(plans))
        confirmed = self._confirm(parsed_args, changes)
        if confirmed and generation is None and current is not None:
            # The confirmation is about this generation.
            generation = current["generation"]
        return self.carry_out(ApplyMap(name, requested, generation, changes.released))

    def _plan(
        self, name: str, requested: Mapping[str, Any], generation: int | None
    ) -> Mapping[str, Any] | None:
        """Return the hosts' plans; None if they can't be had: the changes are shown then."""
        try:
            found = self.client.plan_map(name, requested, generation)
        except Fault as fault:
            Messages(self.app.stderr).print(f"the map can't be planned: {fault}")
            self._status = 1
            return None
        if any(each["outcome"] not in _PLANNED for each in found["plans"]):
            self._status = 1
        return found

    def _confirm(self, parsed: argparse.Namespace, changes: MapChanges) -> bool:
        """Ask the user to confirm a release that may be a mistake; return False if it is none.

        :raises RequestInvalid: without a confirmation.
        """
        number, total = len(changes.released), len(changes.before)
        if changes.empties and not parsed.allow_empty:
            why, option = "names no instance", "--allow-empty"
        elif changes.after and changes.releases_most and not parsed.allow_large_release:
            why, option = f"leaves out {number} instances", "--allow-large-release"
        else:
            return False
        text = (
            f"{parsed.file} {why}: {number} of the {total} instances of the map "
            f"{parsed.name} would be released"
        )
        stdin = sys.stdin
        if parsed.file != files.STDIN and stdin is not None and stdin.isatty():
            Messages(self.app.stderr).print(f"{text}. Type yes to continue:")
            if stdin.readline().strip() == "yes":
                return True
        raise exception.RequestInvalid(
            f"{text}; nothing was done: add {option} to apply it, --dry-run to see the changes"
        )


class MapDelete(_OfMap, Change):
    """Delete a map: return all its instances to their baseline."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_generation(parser, absent=False)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Fields:
        name, members = parsed_args.name, []
        if parsed_args.wait:
            found = self.client.map(name)["allocations"]
            members = [each["instance_uuid"] for each in found]
        return self.carry_out(DeleteMap(name, parsed_args.generation, members))
