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
"""The database, and API requests that do not fit what it has."""

from __future__ import annotations

from kongming.exception.base import KongmingError


class DatabaseUnavailable(KongmingError):
    """The database is unavailable, or has a schema that this version does not support.

    :param for_clients: the message without the driver's details.
    """

    reason = "database_unavailable"

    def __init__(self, message: str, for_clients: str = "") -> None:
        super().__init__(message)
        self._for_clients = for_clients or message

    @property
    def for_clients(self) -> str:
        return self._for_clients


class DatabaseFault(KongmingError):
    """The database refuses a statement: a fault of Kongming."""

    reason = "internal_error"


class ThreadsBusy(KongmingError):
    """All threads of the server but one wait for others."""

    reason = "busy"


class Conflict(KongmingError):
    """The resource is not in the state that the caller expects."""

    reason = "conflict"


class GenerationConflict(Conflict):
    """The resource has changed since the caller read it."""

    reason = "generation_conflict"


class MapConflict(Conflict):
    """An instance belongs to another allocation map."""

    reason = "map_conflict"


class Unknown(KongmingError):
    """No resource has that name."""

    reason = "unknown"


class AllocationUnknown(Unknown):
    """The instance has no allocation."""

    reason = "allocation_unknown"


class MapUnknown(Unknown):
    """No allocation map has that name."""

    reason = "map_unknown"


class HostUnknown(Unknown):
    """No executor of that host has ever sent a heartbeat."""

    reason = "host_unknown"
