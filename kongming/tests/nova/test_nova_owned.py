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

"""A guest that Nova places itself: Kongming keeps its hands off."""

from kongming.tests.nova.aspects import FIRST
from kongming.tests.testbed.openstack.content import NUMA_FLAVOR


def test_a_server_whose_flavor_has_a_numa_topology_is_refused(cloud):
    server = cloud.server(FIRST, NUMA_FLAVOR)
    cloud.daemon.wait_log(f"Instance {server.uuid}: refused (nova_owned): ")
    cloud.settle()
    assert server.looks() != FIRST.looks(2)
    assert "baseline" not in server.domain().XMLDesc()
    server.delete()
