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
"""Instances by name: from Nova, or from the hosts' snapshots."""

from __future__ import annotations

from collections.abc import Iterable
import re
from typing import Any
import uuid

from keystoneauth1 import exceptions as keystone
from openstack import exceptions as openstack
from osc_lib import exceptions

from kongming.client.rest import Client
from kongming.runtime.escaping import escape

_SHOWN = 5


def find(manager: Any, named: str) -> str:
    """Return the UUID of an instance.

    :param manager: the client manager of osc_lib.
    :param named: its UUID; or its name in Nova, or libvirt's name of its guest.
    :raises CommandError: unless exactly one instance has the name.
    """
    try:
        return str(uuid.UUID(named))
    except ValueError:
        pass
    found = _in_nova(manager, named) or sorted(set(_on_hosts(manager.kongming, named)))
    if len(found) == 1:
        return found[0]
    if not found:
        raise exceptions.CommandError(
            escape(f"no instance is named {named!r}: name one of Nova's servers, or its UUID")
        )
    more = ", ..." if len(found) > _SHOWN else ""
    raise exceptions.CommandError(
        escape(
            f"{len(found)} instances are named {named!r} ({', '.join(found[:_SHOWN])}{more}): use "
            "the UUID"
        )
    )


def names(manager: Any) -> dict[str, str] | None:
    """Return the names of all servers in Nova by UUID; None if Nova can't be read."""
    found = _servers(manager)
    return None if found is None else {str(each.id): str(each.name) for each in found}


def _in_nova(manager: Any, named: str) -> list[str]:
    # Nova reads the name as a regular expression, and some databases ignore case.
    found = _servers(manager, name=f"^{re.escape(named)}$") or ()
    return sorted(str(each.id) for each in found if each.name == named)


def _servers(manager: Any, **query: str) -> list[Any] | None:
    """Return Nova's servers, of all projects if the user may read them; None without Nova."""
    try:
        compute = manager.sdk_connection.compute
        try:
            return list(compute.servers(details=False, all_projects=True, **query))
        except openstack.ForbiddenException:
            return list(compute.servers(details=False, **query))
    except (keystone.ClientException, openstack.SDKException):
        # Such as without Keystone, or without an endpoint of Nova.
        return None


def _on_hosts(client: Client, named: str) -> Iterable[str]:
    for each in client.hosts():
        snapshot = client.host(each["name"]).get("snapshot") or {}
        for guest in snapshot.get("guests", ()):
            if guest.get("name") == named:
                yield str(guest["instance_uuid"])
