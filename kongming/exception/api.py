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
    """The database does not answer, or is not what this version works with.

    The driver's words are for operators.
    """

    reason = "database_unavailable"

    def __init__(self, message: str, for_clients: str = "") -> None:
        super().__init__(message)
        self._for_clients = for_clients or message

    @property
    def for_clients(self) -> str:
        return self._for_clients


class DatabaseFault(KongmingError):
    """The database refuses a statement as such: a fault of Kongming."""

    reason = "internal_error"


class ThreadsBusy(KongmingError):
    """All threads of the server but one wait for others."""

    reason = "busy"


class Conflict(KongmingError):
    """What was to be changed is not as the caller believes it to be."""

    reason = "conflict"


class GenerationConflict(Conflict):
    """Somebody else has changed it since the caller read it."""

    reason = "generation_conflict"


class MapConflict(Conflict):
    """An instance belongs to another allocation map."""

    reason = "map_conflict"


class Unknown(KongmingError):
    """There is nothing of that name."""

    reason = "unknown"


class AllocationUnknown(Unknown):
    """Nothing is asked for that instance."""

    reason = "allocation_unknown"


class MapUnknown(Unknown):
    """There is no allocation map of that name."""

    reason = "map_unknown"


class HostUnknown(Unknown):
    """No executor of that host was ever heard of."""

    reason = "host_unknown"
