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

"""Keystone's tokens and their service catalogues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keystoneauth1 import access
from keystoneauth1.identity.base import BaseIdentityPlugin

EAST = [("public", "east", "http://east"), ("internal", "east", "http://in-east")]
WEST = [("admin", "west", "http://west")]


class Auth(BaseIdentityPlugin):
    """A log-in whose token is there already."""

    def __init__(self, token: dict[str, Any]) -> None:
        super().__init__("http://keystone")
        self._token = token

    def get_auth_ref(self, session: Any) -> access.AccessInfo:
        return access.create(body=self._token, auth_token="x")


def token(
    *,
    scope: str = "project",
    endpoints: Sequence[tuple[str, str, str]] = (),
    kind: str = "kongming",
) -> dict[str, Any]:
    """A token whose catalogue has endpoints of one service, as interface, region and URL."""
    body: dict[str, Any] = {"user": {}, "methods": [], "expires_at": "2999-01-01T00:00:00.000000Z"}
    listed = [
        {"id": url, "interface": interface, "region": region, "region_id": region, "url": url}
        for interface, region, url in endpoints
    ]
    if scope:
        body |= {"system": {"all": True}} if scope == "system" else {"project": {"id": "p"}}
        compute = {"id": "c", "interface": "public", "region_id": "up", "url": "http://nova"}
        body["catalog"] = [
            {"type": "compute", "name": "nova", "endpoints": [{**compute, "region": "up"}]},
            {"type": kind, "name": kind, "endpoints": listed},
        ]
    return {"token": body}
