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

"""What a cloud must hold before a server can be made: roles, a catalogue, an image, flavors."""

from __future__ import annotations

import os
from pathlib import Path

from kongming.tests.testbed.openstack.image import obedient_disk
from kongming.tests.testbed.openstack.rest import Rest
from kongming.tests.testbed.openstack.site import PASSWORD, REGION, USER, Site

# Keystone knows its own since it was set up.
CATALOGUE = {
    "placement": ("placement", ""),
    "glance": ("image", ""),
    "neutron": ("network", ""),
    "nova": ("compute", "/v2.1"),
}
IMAGE = "obedient"
MEMORY_MIB = 64
DISK_GIB = 1
VCPUS = (1, 2, 3, 4)
NUMA_FLAVOR, PAGES_FLAVOR = "numa", "pages"
DEDICATED_FLAVOR, MIXED_FLAVOR = "dedicated", "mixed"
HUGE_PAGES = Path("/sys/kernel/mm/hugepages")


def flavor(vcpus: int) -> str:
    """The id of the flavor with so many vCPUs."""
    return f"v{vcpus}"


def trust_services(rest: Rest) -> None:
    """Let the services, which are the administrator here, speak as services to each other."""
    role = rest.get("keystone", "/v3/roles?name=service")["roles"][0]["id"]
    user = rest.get("keystone", "/v3/users?name=admin")["users"][0]["id"]
    project = rest.get("keystone", "/v3/projects?name=admin")["projects"][0]["id"]
    rest.request("PUT", "keystone", f"/v3/projects/{project}/users/{user}/roles/{role}")


def create_service_user(rest: Rest) -> None:
    """Make Kongming's user, who may read what Nova lets it and nothing else."""
    domain = {"domain_id": "default"}
    role = rest.post("keystone", "/v3/roles", {"role": {"name": USER}})["role"]["id"]
    reader = rest.get("keystone", "/v3/roles?name=reader")["roles"][0]["id"]
    project = rest.post("keystone", "/v3/projects", {"project": {"name": USER, **domain}})
    user = rest.post(
        "keystone", "/v3/users", {"user": {"name": USER, "password": PASSWORD, **domain}}
    )
    members = f"/v3/projects/{project['project']['id']}/users/{user['user']['id']}"
    for each in (role, reader):
        rest.request("PUT", "keystone", f"{members}/roles/{each}")


def create_catalogue(site: Site, rest: Rest) -> None:
    """Tell Keystone where the others are."""
    for name, (kind, path) in CATALOGUE.items():
        made = rest.post("keystone", "/v3/services", {"service": {"name": name, "type": kind}})
        for interface in ("public", "internal", "admin"):
            endpoint = {
                "service_id": made["service"]["id"],
                "interface": interface,
                "url": site.url(name) + path,
                "region_id": REGION,
            }
            rest.post("keystone", "/v3/endpoints", {"endpoint": endpoint})


def create_image(rest: Rest) -> str:
    """Upload the image; its id."""
    image = {
        "name": IMAGE,
        "disk_format": "raw",
        "container_format": "bare",
        "visibility": "public",
        # The one machine whose power button the guest knows.
        "hw_machine_type": "pc",
    }
    image_id: str = rest.post("glance", "/v2/images", image)["id"]
    rest.request("PUT", "glance", f"/v2/images/{image_id}/file", obedient_disk())
    return image_id


def create_flavors(rest: Rest) -> None:
    """Make a flavor for each number of vCPUs, and some that give a guest a NUMA topology."""
    for vcpus in VCPUS:
        # Placement gives a consumer no more vCPUs than the host has CPUs: have it give none.
        specs = {} if vcpus <= (os.cpu_count() or 1) else {"resources:VCPU": "0"}
        _create_flavor(rest, flavor(vcpus), vcpus, specs)
    for name, specs in {
        NUMA_FLAVOR: {"hw:numa_nodes": "1"},
        PAGES_FLAVOR: {"hw:mem_page_size": page_size()},
        DEDICATED_FLAVOR: {"hw:cpu_policy": "dedicated"},
        MIXED_FLAVOR: {"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "1"},
    }.items():
        _create_flavor(rest, name, 2, specs)


def page_size() -> str:
    """Return which pages guests can have on this machine: any size makes a NUMA topology."""
    free_kib = sum(
        int((folder / "free_hugepages").read_text())
        * int(folder.name.removeprefix("hugepages-").removesuffix("kB"))
        for folder in HUGE_PAGES.glob("hugepages-*kB")
    )
    mounted = " hugetlbfs " in Path("/proc/self/mounts").read_text()
    # Nova keeps the guest of before while it resizes.
    return "large" if mounted and free_kib >= 2 * MEMORY_MIB * 1024 else "small"


def _create_flavor(rest: Rest, name: str, vcpus: int, specs: dict[str, str]) -> None:
    sizes = {"vcpus": vcpus, "ram": MEMORY_MIB, "disk": DISK_GIB}
    rest.post("nova", "/v2.1/flavors", {"flavor": {"id": name, "name": name, **sizes}})
    if specs:
        rest.post("nova", f"/v2.1/flavors/{name}/os-extra_specs", {"extra_specs": specs})
