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

"""A host whose libvirt has not all controllers of the control groups.

What it can't do is refused once, each part with its reason; the rest is in force.
"""

import pytest

from kongming.hypervisor.connection import run_event_loop
from kongming.tests.integration.conftest import Cloud, status
from kongming.tests.testbed.libvirtd import Libvirtd

pytestmark = pytest.mark.needs_mounts


@pytest.fixture
def host(broker, tmp_path):
    """Return a cloud of one host whose libvirt has the controllers that a test names."""
    clouds = []

    def with_controllers(*controllers):
        run_event_loop()
        libvirtd = Libvirtd(tmp_path / "libvirt", controllers=controllers)
        libvirtd.start()
        clouds.append((Cloud(broker, libvirtd, tmp_path), libvirtd))
        return clouds[0][0]

    yield with_controllers
    for cloud, libvirtd in clouds:
        cloud.close()
        libvirtd.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("controllers", "values", "reason"),
    [
        (("cpuset",), {"cpu_shares": "512"}, "shares_unsupported"),
        (("cpuset",), {"vcpu_quota": "50%"}, "quota_unsupported"),
        (("cpu",), {"numa_nodes": "0"}, "memory_unsupported"),
    ],
)
def test_targets_that_the_host_does_not_support_are_refused_once_and_the_rest_is_placed(
    host, cpus, controllers, values, reason
):
    cloud = host(*controllers)
    guest = cloud.guest(vcpus=1)
    with cloud.daemon(options="[executor]\ncheck_interval = 1\n") as daemon:
        cloud.update(guest, vcpu_pinning=str(cpus[-1]), **values)
        guest.wait_on(cpus[-1])
        record = status(daemon, guest, "refused")
        assert record.reason == reason
        # What is in force is kept, and nothing is tried again.
        guest.pin(cpus[0])
        guest.wait_on(cpus[-1])
        assert status(daemon, guest, "refused").generation == record.generation
        assert daemon.log().count(f"({reason})") == 1
        assert "failed" not in daemon.log()
        cloud.update(guest, vcpu_pinning=str(cpus[0]))
        guest.wait_on(cpus[0])
        status(daemon, guest, "applied")
