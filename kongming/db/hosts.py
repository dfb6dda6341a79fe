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

"""The compute hosts: when their executors were last heard of, and what they told."""

from __future__ import annotations

import builtins
from typing import Any

from kongming.db.database import Database
from kongming.db.values import Host


class Hosts:
    """The compute hosts. Any thread may call any method."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def see(
        self, name: str, *, started_at: float, version: str, interval_s: float, now: float
    ) -> str:
        raise NotImplementedError

    def keep_view(self, name: str, view: dict[str, Any], digest: str, now: float) -> None:
        raise NotImplementedError

    def get(self, name: str) -> Host | None:
        raise NotImplementedError

    def list(
        self, limit: int | None = None, marker: str | None = None, *, views: bool = True
    ) -> builtins.list[Host]:
        raise NotImplementedError

    def forget(self, name: str) -> None:
        raise NotImplementedError
