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
"""Columns of the API's JSON: read well in a table, and are that JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cliff.columns import FormattableColumn

from kongming.allocation import stored
from kongming.allocation.stored import Unreadable
from kongming.osc import progress
from kongming.osc.map_changes import MapChanges
from kongming.runtime.escaping import escape
from kongming.terminal.columns import Asked


class Wanted(FormattableColumn[dict[str, Any] | None]):
    """An allocation; None to go back to the baseline."""

    def human_readable(self) -> str:
        if self._value is None:
            return "(its baseline)"
        found = stored.understand(self._value)
        # A newer API may know more than this client.
        return found.text if isinstance(found, Unreadable) else Asked(found).human_readable()


class Unread(FormattableColumn[None]):
    """An allocation that the API can't read."""

    def human_readable(self) -> str:
        return "(can't be read)"


class Counts(FormattableColumn[dict[str, int]]):
    """How many there are of each status."""

    def human_readable(self) -> str:
        return ", ".join(f"{number} {status}" for status, number in self._value.items())


class Outcomes(FormattableColumn[list[Mapping[str, Any]]]):
    """What became of allocations."""

    def human_readable(self) -> str:
        return "\n".join(escape(progress.describe(each)) for each in self._value)


class Missing(Outcomes):
    """What was not done, in short: why is told besides."""

    def human_readable(self) -> str:
        return "\n".join(
            escape(
                f"{each['instance_uuid']}: {each['status']}"
                + (f" ({each['reason']})" if each["reason"] else "")
            )
            for each in self._value
        )


class Unknown(FormattableColumn[None]):
    """What is not there: nothing to read."""

    def human_readable(self) -> str:
        return ""


def of_fields(told: Mapping[str, Any]) -> dict[str, Any]:
    """Give the fields of what the API tells as columns."""
    return {name: _column(name, told) for name in told}


def of_map(told: Mapping[str, Any]) -> dict[str, Any]:
    """Give the fields of an allocation map of the API as columns."""
    fields = dict(told)
    if "counts" in fields:
        fields["counts"] = Counts(fields["counts"])
    if "allocations" in fields:
        fields["allocations"] = Outcomes(fields["allocations"])
    return fields


def not_applied(allocations: progress.Allocations) -> Missing:
    """Give those that do not have what is wanted, in short."""
    names = ("instance_uuid", "host", "reported_by", "host_state", "status", "reason", "message")
    return Missing(
        [
            {name: each.get(name) for name in names} | {"status": progress.standing(each)}
            for each in allocations
            if progress.standing(each) != "applied"
        ]
    )


class Requested(FormattableColumn[Mapping[str, Any]]):
    """Allocations by instance."""

    def human_readable(self) -> str:
        return "\n".join(f"{uuid}: {_written(each)}" for uuid, each in self._value.items())


class Changed(FormattableColumn[Mapping[str, Mapping[str, Any]]]):
    """From what to what allocations change, by instance."""

    def human_readable(self) -> str:
        return "\n".join(
            f"{uuid}: {_written(each['from'])} -> {_written(each['to'])}"
            for uuid, each in self._value.items()
        )


class Instances(FormattableColumn[list[str]]):
    """Instances about which there is no more to say than how many they are."""

    def human_readable(self) -> str:
        return f"{len(self._value)} instances"


def of_changes(name: str, generation: int | None, changes: MapChanges) -> dict[str, Any]:
    """Give as columns what applying a map would change."""
    before, after = changes.before, changes.after
    changed = {uuid: {"from": before[uuid], "to": after[uuid]} for uuid in changes.changed}
    return {
        "name": name,
        "generation": Unknown(None) if generation is None else generation,
        "added": Requested({uuid: after[uuid] for uuid in changes.added}),
        "changed": Changed(changed),
        "released": Requested({uuid: before[uuid] for uuid in changes.released}),
        "unchanged": Instances(changes.unchanged),
    }


def _written(asked: Any) -> str:
    """Write an allocation in one line."""
    column = Unread(None) if asked is None else Wanted(asked)
    return escape(column.human_readable().replace("\n", "; "))


def rows(names: Sequence[str], told: Mapping[str, Any]) -> tuple[Any, ...]:
    """Give one row of a list; an allocation is written as such."""
    return tuple(_column(name, told) for name in names)


def _column(name: str, told: Mapping[str, Any]) -> Any:
    value = told.get(name)
    if name == "allocation":
        # Only of what is in force the API tells when it began.
        in_force = "created_at" in told and told.get("status") != "releasing"
        return Unread(None) if value is None and in_force else Wanted(value)
    return Unknown(None) if value is None else value
