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
"""An orchestrator: it gives each instance of a VNF CPUs that no other guest is pinned to.

Usage: mano.py <cloud of clouds.yaml> <name of the map> <instance>=<number of CPUs> ...
"""

import sys

import openstack
from openstack.exceptions import SDKException

import kongming.client
from kongming.client import Conflict, NotFound

ATTEMPTS = 5


def main():
    cloud, name, *instances = sys.argv[1:]
    sizes = {uuid: int(number) for uuid, number in (each.split("=") for each in instances)}
    api = kongming.client.add_to(openstack.connect(cloud=cloud))

    # The CPUs that hosts refused.
    refused = set()
    place(api, name, sizes, refused)

    # Scale in: the last instance leaves the map, and is released.
    sizes.popitem()
    outcome = place(api, name, sizes, refused)

    deleted = api.delete_allocation_map(name, generation=outcome.generation)
    api.wait_for_release(deleted, report=print)
    print(f"{name} is deleted")


def place(api, name, sizes, refused):
    """Bring the allocations of all instances into force, and return the map."""
    for _ in range(ATTEMPTS):
        # Read the generation first: the computation is based on it.
        generation = generation_of(api, name)
        allocations = compute(api, sizes, refused)
        try:
            accepted = api.apply_allocation_map(name, allocations, generation=generation)
        except Conflict as conflict:
            if conflict.code != "generation_conflict":
                raise
            # Another program has changed the map: read and compute again.
            continue
        outcome = api.wait_for_map(accepted, timeout=60, report=print)
        undone = [each for each in outcome.allocations if not each.is_in_force]
        if not undone:
            print(f"{name} is in force with generation {outcome.generation}")
            return outcome
        for each in undone:
            host = each.reported_by
            print(f"{each.id} on {host}: {each.status} ({each.reason}): {each.message}")
            # With other CPUs, a request that was refused for its CPUs may be accepted.
            if each.status != "refused" or not each.reason.startswith("cpu_"):
                raise SystemExit(1)
            cpus = kongming.client.parse_ids(allocations[each.id]["vcpu_pinning"])
            refused |= {(host, cpu) for cpu in cpus}
    raise SystemExit(f"{name} is not in force after {ATTEMPTS} attempts")


def generation_of(api, name):
    """Return the current generation of a map; 0 if it does not exist."""
    try:
        return api.get_allocation_map(name).generation
    except NotFound:
        return 0


def compute(api, sizes, refused):
    """Choose CPUs of one NUMA cell for each instance.

    This program does not read the operator's rules, which are in the snapshots, too. The host
    refuses what they forbid, and then the program avoids these CPUs.
    """
    allocations = {}
    for each in api.hosts():
        snapshot = api.get_host(each).snapshot if each.state == "up" else None
        if snapshot is None:
            continue
        others = [guest for guest in snapshot["guests"] if guest["instance_uuid"] not in sizes]
        pins = [cpus for guest in others for cpus in guest["pins"].values()]
        taken = {(each.name, cpu) for cpus in pins for cpu in kongming.client.parse_ids(cpus)}
        cells = [
            [cpu["id"] for cpu in cell["cpus"] if cpu["online"]] for cell in snapshot["cells"]
        ]
        free = [[cpu for cpu in cell if (each.name, cpu) not in taken | refused] for cell in cells]
        for guest in snapshot["guests"]:
            uuid = guest["instance_uuid"]
            if uuid not in sizes:
                continue
            cell = next((cell for cell in free if len(cell) >= sizes[uuid]), None)
            if cell is None:
                raise SystemExit(f"{each.name} has not enough free CPUs for {uuid}")
            cpus = [cell.pop(0) for _ in range(sizes[uuid])]
            allocations[uuid] = {"vcpu_pinning": ",".join(map(str, cpus))}
    if missing := sizes.keys() - allocations.keys():
        # A map without them would release them.
        raise SystemExit(f"no host runs {', '.join(sorted(missing))}")
    return allocations


if __name__ == "__main__":
    try:
        main()
    except SDKException as error:
        # One line with Kongming's reason code: the request was refused, replaced or not in time.
        raise SystemExit(str(error)) from error
