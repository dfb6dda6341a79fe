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
"""Explanations of a missing endpoint from Keystone's catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from keystoneauth1 import exceptions as keystone
from keystoneauth1.adapter import Adapter
from osc_lib import exceptions

NO_REGION = "(no region)"
_WAY_OUT = "or name the API's address with --os-kongming-endpoint"


def explain(adapter: Adapter) -> str:
    """Return why an adapter finds no endpoint, and how it would find one."""
    auth: Any = adapter.auth or adapter.session.auth
    try:
        access = auth.get_access(adapter.session)
    except AttributeError:
        # Such as "none", which has no catalogue.
        return (
            "this authentication type has no service catalogue: name the API's address with "
            "--os-kongming-endpoint"
        )
    except (keystone.ClientException, exceptions.CommandError):
        return f"the service catalogue can't be read: authenticate again, {_WAY_OUT}"
    catalog = access.service_catalog.catalog if access.has_service_catalog() else []
    scopes = (access.project_scoped, access.domain_scoped, getattr(access, "system_scoped", False))
    return missing(
        [entry for entry in catalog if entry.get("type") == adapter.service_type],
        str(adapter.service_type),
        scoped=any(scopes),
        interface=adapter.interface,
        region_name=adapter.region_name,
    )


def missing(
    entries: Iterable[Mapping[str, Any]],
    service_type: str,
    *,
    scoped: bool,
    interface: Any,
    region_name: str | None,
) -> str:
    """Return why none of a service's endpoints matches.

    :param entries: the entries of the catalogue for this type.
    :param scoped: whether the token is for a project, a domain or the system.
    :param interface: one interface, or several in order; with or without ``URL``.
    """
    found = [
        (str(each.get("interface")), str(each.get("region_id") or each.get("region") or NO_REGION))
        for entry in entries
        for each in entry.get("endpoints") or ()
    ]
    if not found and not scoped:
        return (
            "the token is not scoped and has no service catalogue: name a project "
            f"(--os-project-name), {_WAY_OUT}"
        )
    if not found:
        return (
            f"the service catalogue has no endpoint of the type {service_type}: create one "
            f"(openstack endpoint create), {_WAY_OUT}"
        )
    regions = sorted({region for _, region in found})
    if region_name and region_name not in regions:
        return (
            f"the service catalogue has no endpoint of the type {service_type} in the region "
            f"{region_name}, only in {_listed(regions)}: choose one with --os-region-name, "
            f"{_WAY_OUT}"
        )
    requested = [interface] if isinstance(interface, str) else list(interface or ())
    names = [str(each).removesuffix("URL") for each in requested]
    of_region = sorted({kind for kind, region in found if region_name in (None, "", region)})
    where = f" in the region {region_name}" if region_name else ""
    return (
        f"the service catalogue has no endpoint of the type {service_type} with the interface "
        f"{_listed(names) or 'public'}{where}, only {_listed(of_region)}: choose one with "
        f"--os-interface or kongming_interface of clouds.yaml, {_WAY_OUT}"
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
