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

from cliff.columns import FormattableColumn
from cliff.show import ShowOne

from kongming.executor.rules import read_rules
from kongming.hypervisor import host, occupancy, session, topology
from kongming.hypervisor.topology import Cell, Topology
from kongming.manage import picture
from kongming.manage.command import conf_of
from kongming.manage.text import memory


class HostShow(ShowOne):
    """Show this host: its NUMA cells, cores and CPUs, and which guests are pinned where."""

    @property
    def formatter_namespace(self) -> str:
        return "kongming.manage.picture"

    @property
    def formatter_default(self) -> str:
        return "picture"

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        conf = conf_of(self)
        rules = read_rules(conf)
        uri = conf.libvirt.connection_uri
        with session.read_only(uri) as connection:
            cells = topology.read(connection, host.SYSTEM / "cpu" if host.is_here(uri) else None)
            guests = occupancy.read(connection)
        if parsed_args.formatter == self.formatter_default:
            drawn = picture.draw(cells, guests, rules, parsed_args.width)
            return ("picture",), (drawn,)
        return self.dict2columns(
            {
                "cells": _Cells(cells),
                "homeless_cpus": _Homeless(cells),
                "guests": _Lines([guest.to_json() for guest in guests]),
                "rules": _Fields(rules.to_json()),
            }
        )


class _Cells(FormattableColumn[Topology]):
    def machine_readable(self) -> Any:
        return self._value.to_json()["cells"]

    def human_readable(self) -> str:
        return "\n".join(_line(cell) for cell in self._value.cells)


class _Homeless(FormattableColumn[Topology]):
    def machine_readable(self) -> Any:
        return self._value.to_json()["homeless_cpus"]

    def human_readable(self) -> str:
        return ", ".join(str(cpu.id) for cpu in self._value.homeless)


class _Fields(FormattableColumn[dict[str, Any]]):
    def human_readable(self) -> str:
        return "\n".join(f"{name}: {_plain(value)}" for name, value in self._value.items())


class _Lines(FormattableColumn[list[dict[str, Any]]]):
    def human_readable(self) -> str:
        return "\n".join(
            f"{guest['instance_uuid']} {guest['name']}: {_pins(guest['pins'])}"
            for guest in self._value
        )


def _line(cell: Cell) -> str:
    cpus = topology.ids(cell.cpus)
    free = "" if cell.free_kib is None else f" ({memory(cell.free_kib)} free)"
    return f"{cell.id}: CPUs {cpus}, {memory(cell.memory_kib)} of memory{free}"


def _pins(pins: dict[str, str]) -> str:
    return "; ".join(f"{vcpu}:{cpus}" for vcpu, cpus in pins.items()) or "floating"


def _plain(value: Any) -> str:
    if value is None:
        return "all"
    return ", ".join(value) if isinstance(value, list) else str(value)
