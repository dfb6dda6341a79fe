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

"""What Nova itself keeps account of: a placement is nothing that it would notice."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy

from kongming.tests.testbed.openstack.cloud import OpenStack
from kongming.tests.testbed.openstack.database import database_url

_INSTANCE = "SELECT numa_topology FROM instance_extra WHERE instance_uuid = :uuid AND deleted = 0"
_HOST = (
    "SELECT numa_topology, vcpus_used, memory_mb_used, local_gb_used, running_vms "
    "FROM compute_nodes WHERE host = :host AND deleted = 0"
)


def accounts(openstack: OpenStack, instance_uuid: str) -> dict[str, Any]:
    """Return what Nova and Placement have written down of an instance and its host.

    nova-compute is restarted first: it counts again then what its host has and gives.
    """
    openstack.compute.restart()
    allocations = openstack.rest.get("placement", f"/allocations/{instance_uuid}")["allocations"]
    engine = sqlalchemy.create_engine(database_url(openstack.site, "nova_cell1"))
    with engine.connect() as connection:
        instance = connection.execute(sqlalchemy.text(_INSTANCE), {"uuid": instance_uuid}).one()
        host = connection.execute(sqlalchemy.text(_HOST), {"host": openstack.compute.host}).one()
    engine.dispose()
    return {
        "allocated": {
            provider: allocation["resources"] for provider, allocation in allocations.items()
        },
        "instance": _data(json.loads(instance.numa_topology or "null")),
        "host": {**host._mapping, "numa_topology": _data(json.loads(host.numa_topology))},
    }


def _data(written: Any) -> Any:
    """Return the data of Nova's versioned objects without the description of the objects."""
    if isinstance(written, list):
        return [_data(each) for each in written]
    if isinstance(written, dict):
        data = written.get("nova_object.data", written)
        return {key: _data(value) for key, value in data.items()}
    return written
