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

"""``kongming-manage host ...``: the compute host itself."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from kongming.configuration.rules import read_rules
from kongming.host import snapshot
from kongming.manage import state
from kongming.manage.command import conf_of
from kongming.terminal import host_snapshot
from kongming.terminal.output import ShowOne


class HostShow(ShowOne):
    """Show this host: its NUMA cells, cores and CPUs, and the guests pinned to them."""

    @property
    def formatter_namespace(self) -> str:
        return "kongming.terminal.picture"

    @property
    def formatter_default(self) -> str:
        return "picture"

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        conf = conf_of(self)
        rules = read_rules(conf)
        with state.hypervisor(self) as hypervisor:
            found = snapshot.to_json(hypervisor.topology(), hypervisor.occupants(), rules)
        if parsed_args.formatter == self.formatter_default:
            return ("picture",), (host_snapshot.draw(found, parsed_args.width),)
        return self.dict2columns(host_snapshot.columns(found))
