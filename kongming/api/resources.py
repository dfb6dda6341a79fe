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

"""All resources of the API, for the application and the OpenAPI document."""

from kongming.api import documents
from kongming.api.allocation_maps import MapItem, MapList
from kongming.api.allocations import AllocationHistory, AllocationItem, AllocationList
from kongming.api.hosts import HostItem, HostList

#: Resources without state.
PUBLIC = (documents.Versions, documents.Version, documents.AllocationSchema)

#: Resources that need the application's parts.
OF_PARTS = (
    AllocationList,
    AllocationItem,
    AllocationHistory,
    MapList,
    MapItem,
    HostList,
    HostItem,
)

RESOURCES = (*PUBLIC, documents.OpenApi, *OF_PARTS)
