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
"""A host's snapshot, drawn or in columns; see :mod:`kongming.host.snapshot`.

The host may be remote, so nothing here uses libvirt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cliff.columns import FormattableColumn

from kongming.allocation.cpuset import CpuSet, parse_ids
from kongming.host.occupant import Occupant
from kongming.host.rules import Rules
from kongming.host.topology import Cell, Topology, ids
from kongming.host.violations import Kind
from kongming.rpc.host_snapshot import fitted
from kongming.runtime.escaping import escape_all
from kongming.terminal import picture
from kongming.terminal.text import memory


def draw(snapshot: Mapping[str, Any], width: int = picture.WIDTH) -> str:
    """Draw the host, as far as the snapshot is valid; see :mod:`kongming.terminal.picture`."""
    snapshot = fitted(escape_all(snapshot))
    return picture.draw(
        Topology.from_json(snapshot),
        [Occupant.from_json(guest) for guest in snapshot["guests"]],
        Rules.from_json(snapshot["rules"]),
        width,
        violations=[violation["message"] for violation in snapshot["violations"]],
        siblings=CpuSet(
            cpu
            for violation in snapshot["violations"]
            if violation["kind"] == Kind.SMT_SIBLING
            for cpu in parse_ids(violation["cpus"])
        ),
    )


def columns(snapshot: Mapping[str, Any]) -> dict[str, FormattableColumn[Any]]:
    """Return the parts of a snapshot as columns: data for programs, lines for people."""
    snapshot = fitted(snapshot)
    return {
        "cells": Cells(snapshot["cells"]),
        "unassigned_cpus": Cpus(snapshot["unassigned_cpus"]),
        "guests": Guests(snapshot["guests"]),
        "rules": Fields(snapshot["rules"]),
        "violations": Violations(snapshot["violations"]),
    }


class Cells(FormattableColumn[list[dict[str, Any]]]):
    """The NUMA cells."""

    def human_readable(self) -> str:
        return "\n".join(_line(Cell.from_json(cell)) for cell in escape_all(self._value))


class Cpus(FormattableColumn[list[dict[str, Any]]]):
    """Some CPUs."""

    def human_readable(self) -> str:
        return ", ".join(str(cpu["id"]) for cpu in self._value)


class Fields(FormattableColumn[dict[str, Any]]):
    """The operator's rules, in which null means all."""

    def human_readable(self) -> str:
        fields = escape_all(self._value)
        return "\n".join(f"{name}: {_plain(value)}" for name, value in fields.items())


class Guests(FormattableColumn[list[dict[str, Any]]]):
    """The guests and their pins."""

    def human_readable(self) -> str:
        return "\n".join(
            f"{guest['instance_uuid']} {guest['name']}: {_pins(guest['pins'])}"
            for guest in escape_all(self._value)
        )


class Violations(FormattableColumn[list[dict[str, Any]]]):
    """The violations of rules."""

    def human_readable(self) -> str:
        return "\n".join(f"{each['kind']}: {each['message']}" for each in escape_all(self._value))


def _line(cell: Cell) -> str:
    free = "" if cell.free_kib is None else f" ({memory(cell.free_kib)} free)"
    stored = f"{memory(cell.memory_kib)} of memory{free}" if cell.memory_kib else "no memory"
    return f"{cell.id}: {f'CPUs {ids(cell.cpus)}' if cell.cpus else 'no CPUs'}, {stored}"


def _pins(pins: dict[str, str]) -> str:
    return "; ".join(f"{vcpu}:{cpus}" for vcpu, cpus in pins.items()) or "floating"


def _plain(value: Any) -> str:
    if value is None:
        return "all"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
