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

"""One server of Nova's API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
import uuid

from kongming import exception

_HOST = "OS-EXT-SRV-ATTR:host"
# Servers without a domain, even if Nova shows a host.
_DELETED = "DELETED"
_NOWHERE = frozenset({_DELETED, "SOFT_DELETED", "SHELVED_OFFLOADED"})
_BUILDING = "BUILD"


@dataclass(frozen=True, slots=True)
class Server:
    """A server.

    :ivar host: its compute host; None if it has none.
    :ivar metadata: all its metadata, unchecked.
    :ivar project_id: its project; None if Nova does not show it.
    :ivar deleted: whether it is deleted, and can't be restored.
    :ivar building: whether Nova builds it; it may get a host, or another one.
    """

    instance_uuid: str
    host: str | None
    metadata: Mapping[str, Any]
    project_id: str | None = None
    deleted: bool = False
    building: bool = False


def read(row: object) -> Server:
    """Read one server of a response.

    :raises NovaDenied: if Nova does not show its host.
    :raises NovaUnavailable: if it is not a server.
    """
    if not isinstance(row, dict):
        raise exception.NovaUnavailable(f"a server is a {type(row).__name__}, not an object")
    try:
        instance_uuid = str(uuid.UUID(row["id"]))
        metadata, status = row["metadata"], row["status"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise exception.NovaUnavailable(
            f"a server without a readable id, metadata or status ({type(error).__name__})"
        ) from error
    if not isinstance(metadata, dict):
        raise exception.NovaUnavailable(f"the metadata is a {type(metadata).__name__}")
    if _HOST not in row:
        raise exception.NovaDenied(
            f"Nova does not show the host of a server ({_HOST}): allow the service user "
            "os_compute_api:os-extended-server-attributes"
        )
    host = row[_HOST]
    if status in _NOWHERE or not isinstance(host, str):
        host = None
    project = row.get("tenant_id")
    return Server(
        instance_uuid,
        host,
        metadata,
        project if isinstance(project, str) else None,
        status == _DELETED,
        status == _BUILDING,
    )
