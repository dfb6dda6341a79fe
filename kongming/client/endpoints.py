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
from dataclasses import dataclass
from typing import Any

from keystoneauth1.adapter import Adapter

NO_REGION = "(no region)"


@dataclass(frozen=True, slots=True)
class Settings:
    """The names of the settings with which a user chooses an endpoint, for messages.

    :ivar address: that of the API's URL.
    """

    address: str = "kongming_endpoint_override of clouds.yaml"
    project: str = "project_name"
    region: str = "region_name"
    interface: str = "interface"

    @property
    def name_it(self) -> str:
        """The way out that does not need the service catalogue."""
        return f"name the API's address with {self.address}"


def explain(adapter: Adapter, settings: Settings) -> str:
    """Return why an adapter finds no endpoint, and how it would find one."""
    auth: Any = adapter.auth or adapter.session.auth
    try:
        access = auth.get_access(adapter.session)
    except AttributeError:
        # Such as "none", which has no catalogue.
        return f"this authentication type has no service catalogue: {settings.name_it}"
    except Exception:  # noqa: BLE001, authentication plug-ins have errors of their own
        return f"the service catalogue can't be read: authenticate again, or {settings.name_it}"
    catalog = access.service_catalog.catalog if access.has_service_catalog() else []
    scopes = (access.project_scoped, access.domain_scoped, getattr(access, "system_scoped", False))
    return missing(
        [entry for entry in catalog if entry.get("type") == adapter.service_type],
        str(adapter.service_type),
        scoped=any(scopes),
        interface=adapter.interface,
        region_name=adapter.region_name,
        settings=settings,
    )


def missing(
    entries: Iterable[Mapping[str, Any]],
    service_type: str,
    *,
    scoped: bool,
    interface: Any,
    region_name: str | None,
    settings: Settings,
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
            f"({settings.project}), or {settings.name_it}"
        )
    if not found:
        return (
            f"the service catalogue has no endpoint of the type {service_type}: create one "
            f"(openstack endpoint create), or {settings.name_it}"
        )
    regions = sorted({region for _, region in found})
    if region_name and region_name not in regions:
        return (
            f"the service catalogue has no endpoint of the type {service_type} in the region "
            f"{region_name}, only in {_listed(regions)}: choose one with {settings.region}, "
            f"or {settings.name_it}"
        )
    requested = [interface] if isinstance(interface, str) else list(interface or ())
    names = [str(each).removesuffix("URL") for each in requested]
    of_region = sorted({kind for kind, region in found if region_name in (None, "", region)})
    where = f" in the region {region_name}" if region_name else ""
    return (
        f"the service catalogue has no endpoint of the type {service_type} with the interface "
        f"{_listed(names) or 'public'}{where}, only {_listed(of_region)}: choose one with "
        f"{settings.interface}, or {settings.name_it}"
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
