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

"""Connections of openstacksdk, with Kongming."""

from __future__ import annotations

from typing import Any

import openstack

import kongming.client


def connect(url: str = "", **options: Any) -> Any:
    """Connect without files and environment; without Keystone, unless requested otherwise."""
    address = {"kongming_endpoint_override": url} if url else {}
    return openstack.connect(
        load_yaml_config=False,
        load_envvars=False,
        **{"auth_type": "none", "auth": {}, **address, **options},
    )


def api_at(url: str = "", **options: Any) -> kongming.client.Proxy:
    """Return the service of such a connection."""
    return kongming.client.add_to(connect(url, **options))
