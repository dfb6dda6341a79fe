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

from kongming import stored
from kongming.escaping import escape
from kongming.manage.columns import Asked
from kongming.osc import waiting
from kongming.stored import Unreadable


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
        return "\n".join(escape(waiting.describe(each)) for each in self._value)


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


def not_applied(allocations: waiting.Allocations) -> Missing:
    """Give those that do not have what is wanted, in short."""
    names = ("instance_uuid", "host", "reported_by", "host_state", "status", "reason", "message")
    return Missing(
        [
            {name: each.get(name) for name in names}
            for each in allocations
            if each["status"] != "applied"
        ]
    )


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
