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
"""``openstack kongming host ...``: the compute hosts."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from kongming.osc import columns
from kongming.osc.command import Fields, Lister, ShowOne, Table, add_limit, client_of
from kongming.runtime.escaping import escape
from kongming.terminal import host_snapshot

_COLUMNS = ("name", "state", "heartbeat_at", "heartbeat_age_s", "version", "guests", "violations")
_PARTS = ("cells", "unassigned_cpus", "guests", "rules", "violations")
_UNITS = (("d", 86_400), ("h", 3600), ("min", 60))


class HostList(Lister):
    """List the hosts, with the numbers of their guests and violations."""

    empty = "no host is known: no kongming-executor has reached a conductor yet"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        add_limit(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        found = client_of(self).hosts(parsed_args.limit)
        return _COLUMNS, [columns.row(_COLUMNS, each) for each in found]


class HostShow(ShowOne):
    """Show a host: its NUMA cells, cores and CPUs, the guests pinned to them, and violations.

    The data is the last snapshot that its executor sent.
    """

    @property
    def formatter_namespace(self) -> str:
        return "kongming.terminal.picture"

    @property
    def formatter_default(self) -> str:
        return "picture"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("host", metavar="<host>", help="The host's name, as in Nova.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Fields:
        found = client_of(self).host(parsed_args.host)
        if parsed_args.formatter == self.formatter_default:
            return ("picture",), (_drawn(found, parsed_args.width),)
        snapshot = found.pop("snapshot")
        parts = (
            dict.fromkeys(_PARTS, columns.Unknown(None))
            if snapshot is None
            else host_snapshot.columns(snapshot)
        )
        return self.dict2columns({**columns.of_fields(found), **parts})


def _drawn(found: Mapping[str, Any], width: int) -> str:
    """Draw the host below a line with the age of the picture."""
    last = age(found["heartbeat_age_s"])
    state = f"{escape(found['name'])} is {found['state']}: last heartbeat {last} ago"
    if found["snapshot"] is None:
        return f"{state}. It has not sent a snapshot yet."
    head = f"{state}, unchanged since {found['snapshot_at']}."
    return f"{head}\n\n{host_snapshot.draw(found['snapshot'], width)}"


def age(seconds: float) -> str:
    """Return an age in its largest unit.

    >>> age(7), age(90), age(200000)
    ('7 s', '1 min', '2 d')
    """
    for name, size in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {name}"
    return f"{max(0, int(seconds))} s"
