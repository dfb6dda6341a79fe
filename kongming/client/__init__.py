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

"""The Python client: a service of openstacksdk.

::

    connection = openstack.connect(cloud="example")
    kongming.client.add_to(connection)
    names = [host.name for host in connection.kongming.hosts()]
"""

from kongming.allocation.cpuset import parse_ids
from kongming.client.proxy import Proxy, Replaced
from kongming.client.resources import (
    Allocation,
    AllocationMap,
    AllocationMapPlan,
    HistoryEntry,
    Host,
    Plan,
)
from kongming.client.responses import (
    BadRequest,
    Conflict,
    Fault,
    Forbidden,
    NotFound,
    OutcomeUnknown,
)
from kongming.client.service import SERVICE, add_to

__all__ = [
    "SERVICE",
    "Allocation",
    "AllocationMap",
    "AllocationMapPlan",
    "BadRequest",
    "Conflict",
    "Fault",
    "Forbidden",
    "HistoryEntry",
    "Host",
    "NotFound",
    "OutcomeUnknown",
    "Plan",
    "Proxy",
    "Replaced",
    "add_to",
    "parse_ids",
]
