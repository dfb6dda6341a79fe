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
"""Columns of the API's JSON: text in a table, JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cliff.columns import FormattableColumn

from kongming.allocation import stored
from kongming.allocation.statuses import Status
from kongming.allocation.stored import Unreadable
from kongming.client import progress
from kongming.client.progress import in_one_line
from kongming.osc.map_changes import MapChanges
from kongming.runtime.escaping import escape
from kongming.terminal.columns import Requested


class Desired(FormattableColumn[dict[str, Any] | None]):
    """An allocation; None: a return to the baseline."""

    def human_readable(self) -> str:
        if self._value is None:
            return "(its baseline)"
        found = stored.understand(self._value)
        # A newer API may know more than this client.
        return found.text if isinstance(found, Unreadable) else Requested(found).human_readable()


class NotReadable(FormattableColumn[None]):
    """An allocation that the API can't read."""

    def human_readable(self) -> str:
        return "(can't be read)"


class Counts(FormattableColumn[dict[str, int]]):
    """The number of allocations of each status."""

    def human_readable(self) -> str:
        return ", ".join(f"{number} {status}" for status, number in self._value.items())


class Outcomes(FormattableColumn[list[Mapping[str, Any]]]):
    """The outcomes of allocations."""

    def human_readable(self) -> str:
        return "\n".join(escape(progress.describe(each)) for each in self._value)


class Missing(Outcomes):
    """The allocations that are not in force, without their messages."""

    def human_readable(self) -> str:
        return "\n".join(
            escape(
                f"{each['instance_uuid']}: {each['status']}"
                + (f" ({each['reason']})" if each["reason"] else "")
            )
            for each in self._value
        )


class Unknown(FormattableColumn[None]):
    """A value that is absent."""

    def human_readable(self) -> str:
        return ""


def of_fields(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an object of the API as columns."""
    return {name: _column(name, found) for name in found}


def of_map(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an allocation map as columns."""
    fields = dict(found)
    if "counts" in fields:
        fields["counts"] = Counts(fields["counts"])
    if "allocations" in fields:
        fields["allocations"] = Outcomes(fields["allocations"])
    return fields


def not_applied(allocations: progress.Allocations) -> Missing:
    """Return the allocations that are not in force."""
    names = ("instance_uuid", "host", "reported_by", "host_state", "status", "reason", "message")
    return Missing(
        [
            {name: each.get(name) for name in names} | {"status": progress.status_of(each)}
            for each in progress.not_in_force(allocations)
        ]
    )


class ByInstance(FormattableColumn[Mapping[str, Any]]):
    """Allocations by instance."""

    def human_readable(self) -> str:
        return "\n".join(f"{uuid}: {in_one_line(each)}" for uuid, each in self._value.items())


class Changed(FormattableColumn[Mapping[str, Mapping[str, Any]]]):
    """The present and the requested allocation of each instance."""

    def human_readable(self) -> str:
        return "\n".join(
            f"{uuid}: {in_one_line(each['from'])} -> {in_one_line(each['to'])}"
            for uuid, each in self._value.items()
        )


class Instances(FormattableColumn[list[str]]):
    """Instances, for people only their number."""

    def human_readable(self) -> str:
        return f"{len(self._value)} instances"


class Plans(FormattableColumn[list[Mapping[str, Any]]]):
    """The outcomes of a dry run, with the steps of each instance."""

    def human_readable(self) -> str:
        return "\n".join(line for each in self._value for line in _of_plan(each))


def _of_plan(plan: Mapping[str, Any]) -> list[str]:
    where = f" on {plan['host']}" if plan.get("host") else ""
    result = f" ({plan['reason']}): {plan.get('message')}" if plan.get("reason") else ""
    steps = [f"{step['target']} {step['from']} -> {step['to']}" for step in plan["steps"]]
    if plan["outcome"] == "planned":
        result = f": {'; '.join(steps) or 'nothing would be changed'}"
    return [
        escape(f"{plan['instance_uuid']}{where}: {plan['outcome']}{result}"),
        *(escape(f"  warning: {each}") for each in plan["warnings"]),
    ]


def of_plans(found: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return as columns the plans of a map; None if they can't be had."""
    if found is None:
        return {"outcomes": Unknown(None), "plans": Unknown(None)}
    return {"outcomes": Counts(found["counts"]), "plans": Plans(found["plans"])}


def of_changes(name: str, generation: int | None, changes: MapChanges) -> dict[str, Any]:
    """Return as columns the changes that applying a map would make."""
    before, after = changes.before, changes.after
    changed = {uuid: {"from": before[uuid], "to": after[uuid]} for uuid in changes.changed}
    return {
        "name": name,
        "generation": Unknown(None) if generation is None else generation,
        "added": ByInstance({uuid: after[uuid] for uuid in changes.added}),
        "changed": Changed(changed),
        "released": ByInstance({uuid: before[uuid] for uuid in changes.released}),
        "unchanged": Instances(changes.unchanged),
    }


def row(names: Sequence[str], found: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return an object of the API as one row of a list."""
    return tuple(_column(name, found) for name in names)


def _column(name: str, found: Mapping[str, Any]) -> Any:
    value = found.get(name)
    if name == "allocation":
        # Only the allocation in force has a time of creation.
        in_force = "created_at" in found and found.get("status") != Status.RELEASING
        return NotReadable(None) if value is None and in_force else Desired(value)
    return Unknown(None) if value is None else value
