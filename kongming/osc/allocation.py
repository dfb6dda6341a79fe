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
"""``openstack kongming allocation ...``: the allocations of single instances."""

from __future__ import annotations

import argparse
from typing import Any

from osc_lib import exceptions

from kongming import exception
from kongming.allocation import stored
from kongming.allocation.allocation import Allocation
from kongming.allocation.statuses import LISTED, Status
from kongming.allocation.stored import Unreadable
from kongming.client.responses import Fault
from kongming.client.rest import Client
from kongming.osc import columns, instances
from kongming.osc.change import Change
from kongming.osc.command import (
    Fields,
    Lister,
    OfInstance,
    ShowOne,
    Table,
    add_generation,
    add_limit,
    client_of,
    manager_of,
)
from kongming.osc.requests import SetAllocation, UnsetAllocation
from kongming.runtime.escaping import escape
from kongming.terminal import options, preview

_SHORT = ("instance_uuid", "status", "reason", "host", "map", "generation", "allocation")
_LONG = (
    *_SHORT,
    "message",
    "project_id",
    "host_state",
    "last_drift_at",
    "reported_at",
    "updated_at",
)
_CHANGE = (
    "requested_at",
    "generation",
    "requested_by",
    "map",
    "allocation",
    "status",
    "reason",
    "message",
    "host",
    "changed_at",
    "request_id",
)


class AllocationList(Lister):
    """List the instances that have an allocation."""

    empty = "no allocation is found"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("--host", metavar="<host>", help="Only instances on this host.")
        parser.add_argument(
            "--project", metavar="<project-id>", help="Only instances of this project."
        )
        parser.add_argument("--status", choices=LISTED, help="Only instances with this status.")
        parser.add_argument("--map", metavar="<map>", help="Only instances of this map.")
        add_limit(parser)
        parser.add_argument("--long", action="store_true", help="Show more fields.")
        parser.add_argument(
            "--names", action="store_true", help="Show the servers' names, which Nova has."
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        client, names = client_of(self), _LONG if parsed_args.long else _SHORT
        found: list[Any] = list(
            client.allocations(
                parsed_args.limit,
                host=parsed_args.host,
                project_id=parsed_args.project,
                status=parsed_args.status,
                map=parsed_args.map,
            )
        )
        if not found and parsed_args.host is not None:
            _check_host(client, parsed_args.host)
        if parsed_args.names:
            servers = instances.names(manager_of(self))
            if servers is None:
                self.log.warning("the names of the servers can't be read from Nova")
                servers = {}
            found = [{**each, "name": servers.get(each["instance_uuid"])} for each in found]
            names = (names[0], "name", *names[1:])
        return names, [columns.row(names, each) for each in found]


class AllocationShow(OfInstance, ShowOne):
    """Show the allocation of an instance and its status."""

    def take_action(self, parsed_args: argparse.Namespace) -> Fields:
        found = client_of(self).allocation(parsed_args.instance_uuid)
        return self.dict2columns(columns.of_fields(found))


class AllocationSet(OfInstance, Change):
    """Set the allocation of an instance; it replaces the current one."""

    timeout = 60.0

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        options.add_allocation_options(parser)
        add_generation(parser, absent=True)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Fields:
        requested = options.read_allocation(parsed_args)
        if not requested:
            raise exception.RequestInvalid("the allocation is empty: use at least one option")
        return self.carry_out(
            SetAllocation(parsed_args.instance_uuid, requested.to_json(), parsed_args.generation)
        )


class AllocationUnset(OfInstance, Change):
    """Delete the allocations of instances: return the instances to their baseline.

    After an instance without allocation, the others are released nevertheless; the exit status
    is 1 then.
    """

    several = True
    timeout = 60.0

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_generation(parser, absent=False)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Fields:
        uuids, generation = parsed_args.instances, parsed_args.generation
        if len(uuids) == 1:
            return self.carry_out(UnsetAllocation(uuids[0], generation))
        if generation is not None:
            raise exception.RequestInvalid("--generation is that of one instance: name only one")
        return self.release(uuids)


class AllocationPlan(OfInstance, Lister):
    """Show the changes that an allocation would make to a running guest (dry run).

    Without options: the current allocation. Exits with 1 and the reason if the
    allocation would be refused.
    """

    empty = "nothing would be changed"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        options.add_allocation_options(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        client, instance_uuid = client_of(self), parsed_args.instance_uuid
        allocation = options.read_allocation(parsed_args) or _desired(client, instance_uuid)
        plan = client.plan(instance_uuid, allocation.to_json())
        for warning in plan["warnings"]:
            self.log.warning("%s", escape(warning))
        if plan["outcome"] != "planned":
            raise exceptions.CommandError(
                escape(f"{plan['outcome']} ({plan['reason']}): {plan['message']}")
            )
        return ("step", "target", "from", "to", "grant"), [
            (number, step["target"], step["from"], step["to"], step.get("grant", ""))
            for number, step in enumerate(plan["steps"], 1)
        ]


class AllocationPreview(OfInstance, Lister):
    """Show which time window will be in force at which time."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        preview.add_days_option(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        desired = _desired(client_of(self), parsed_args.instance_uuid)
        return ("from", "to", "window", "allocation"), preview.rows(
            parsed_args.days, desired, lambda part: columns.Desired(part.to_json()), self.log
        )


class AllocationHistory(OfInstance, Lister):
    """Show the requests for an instance: when, by whom, and their outcomes."""

    empty = "the instance has no history"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        add_limit(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        found = client_of(self).history(parsed_args.instance_uuid, parsed_args.limit)
        return _CHANGE, [columns.row(_CHANGE, each) for each in found]


def _check_host(client: Client, name: str) -> None:
    """Refuse a host that is not known.

    :raises Fault: if it is not.
    """
    try:
        client.host(name)
    except Fault as fault:
        # The policy may allow this user to list allocations, but not to read hosts.
        if fault.code == exception.HostUnknown.reason:
            raise


def _desired(client: Client, instance_uuid: str) -> Allocation:
    entry: Any = client.allocation(instance_uuid)
    if entry["allocation"] is None:
        raise exceptions.CommandError(
            f"instance {instance_uuid} has no allocation any more: it returns to its baseline"
            if entry["status"] == Status.RELEASING
            else escape(f"instance {instance_uuid}: {entry['message']}")
        )
    found = stored.understand(entry["allocation"])
    if isinstance(found, Unreadable):
        raise exceptions.CommandError(
            f"this client can't read the allocation ({found.why}): use a newer client"
        )
    return found
