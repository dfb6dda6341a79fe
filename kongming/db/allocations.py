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

"""What is wanted for each instance, what came of it, and the history of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import builtins

from kongming.allocation import Allocation
from kongming.db.database import Database
from kongming.db.values import Change, Entry, Location, Map, Report


class Allocations:
    """What is wanted. Any thread may call any method."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, instance_uuid: str) -> Entry | None:
        raise NotImplementedError

    def list(
        self,
        *,
        host: str | None = None,
        project_id: str | None = None,
        status: str | None = None,
        map_name: str | None = None,
        limit: int | None = None,
        marker: str | None = None,
    ) -> builtins.list[Entry]:
        raise NotImplementedError

    def put(
        self,
        instance_uuid: str,
        allocation: Allocation,
        *,
        generation: int | None,
        asked_by: str,
        request_id: str,
    ) -> tuple[Entry, bool]:
        raise NotImplementedError

    def delete(
        self, instance_uuid: str, *, generation: int | None, asked_by: str, request_id: str
    ) -> Entry | None:
        raise NotImplementedError

    def put_map(
        self,
        name: str,
        allocations: Mapping[str, Allocation],
        *,
        generation: int | None,
        asked_by: str,
        request_id: str,
    ) -> tuple[Map, bool, builtins.list[str]]:
        raise NotImplementedError

    def get_map(self, name: str) -> Map | None:
        raise NotImplementedError

    def maps(self, limit: int | None = None, marker: str | None = None) -> builtins.list[Map]:
        raise NotImplementedError

    def delete_map(
        self, name: str, *, generation: int | None, asked_by: str, request_id: str
    ) -> builtins.list[str]:
        raise NotImplementedError

    def history(
        self, instance_uuid: str, *, limit: int | None = None, marker: int | None = None
    ) -> builtins.list[Change]:
        raise NotImplementedError

    def wanted(self, instance_uuids: Iterable[str]) -> dict[str, Entry]:
        raise NotImplementedError

    def wanted_on(self, host: str) -> dict[str, Entry]:
        raise NotImplementedError

    def report(self, host: str, reports: Sequence[Report], now: float) -> None:
        raise NotImplementedError

    def locate(self, found: Mapping[str, Location]) -> builtins.list[str]:
        raise NotImplementedError

    def gone(self, instance_uuids: Iterable[str], now: float) -> None:
        raise NotImplementedError

    def unlocated(self) -> builtins.list[str]:
        raise NotImplementedError

    def known(self) -> builtins.list[str]:
        raise NotImplementedError
