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

"""Columns: text in a table, data in JSON and YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cliff.columns import FormattableColumn

from kongming.allocation.allocation import Allocation
from kongming.allocation.request import Request
from kongming.allocation.stored import Unreadable, readable
from kongming.allocation.target import Target, Value, describe, to_json
from kongming.allocation.text import lines
from kongming.runtime.escaping import escape
from kongming.terminal import times


class Requested(FormattableColumn[Allocation | Unreadable | None]):
    """A requested allocation; None if the request was malformed."""

    def human_readable(self) -> str:
        if self._value is None or isinstance(self._value, Unreadable):
            return "(can't be read)"
        return "\n".join(lines(self._value)) or "(nothing)"

    def machine_readable(self) -> Any:
        found = readable(self._value)
        return None if found is None else found.to_json()


class Values(FormattableColumn[Mapping[Target, Value] | None]):
    """The values of targets; None if unknown."""

    def human_readable(self) -> str:
        if not self._value:
            return ""
        items = ((what, str(value)) for what, value in sorted(self._value.items()))
        return describe(items).replace("; ", "\n")

    def machine_readable(self) -> Any:
        return None if self._value is None else to_json(self._value)


class Requests(FormattableColumn[list[Request]]):
    """The requests of all sources; the last one takes precedence."""

    def human_readable(self) -> str:
        return "\n".join(
            escape(f"{request.source}: {request.requested_by or 'unknown'}, ")
            + times.written(request.requested_at)
            for request in self._value
        )

    def machine_readable(self) -> Any:
        return [
            {
                "source": str(request.source),
                "requested_by": request.requested_by,
                "requested_at": times.written(request.requested_at),
                "allocation": request.requested.to_json()
                if isinstance(request.requested, Allocation)
                else None,
            }
            for request in self._value
        ]


class Memory(FormattableColumn[dict[int, int] | None]):
    """The guest's memory in KiB by NUMA node; None if unknown."""

    def human_readable(self) -> str:
        if self._value is None:
            return ""
        return "\n".join(f"node {node}: {kib} KiB" for node, kib in self._value.items())

    def machine_readable(self) -> Any:
        if self._value is None:
            return None
        return {str(node): kib for node, kib in self._value.items()}
