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

"""Partitions of a RabbitMQ cluster: once they have healed all is received again.

libvirt is its test driver: no guest is needed here.
"""

from contextlib import ExitStack
import uuid

import pytest

from kongming.tests.testbed.broker import nova_queues
from kongming.tests.testbed.broker_cluster import BrokerCluster
from kongming.tests.testbed.control_plane import ControlPlane
from kongming.tests.testbed.daemon import EXECUTOR, HANDLER, HostProcess
from kongming.tests.testbed.nova import Nova
from kongming.tests.testbed.process import wait_until
from kongming.tests.thorough import stories

pytestmark = pytest.mark.slow

KEY = "kongming-vcpu-pinning"
#: That of libvirt's test driver.
GUEST = "6695eb01-f6a4-8304-79aa-97f2502e193f"
TIMEOUT_S = 240


def url(*nodes):
    hosts = ",".join(f"guest:guest@127.0.0.1:{node.port}" for node in nodes)
    return f"rabbit://{hosts}/{nova_queues()}"


class Cloud:
    """Hosts on both sides of what comes between the nodes; Nova and the API are on one."""

    def __init__(self, cluster, root, stack):
        self._root, self._stack = root, stack
        island, *others = cluster.nodes
        self._nova = Nova(url(*others))
        self.plane = stack.enter_context(
            ControlPlane(root / "plane", transport_url=url(*others), conductors=1)
        )
        self.executor = self._host("x-1", EXECUTOR, "[executor]\npull_interval = 3600\n", island)
        more = "[notification_handler]\npool = kongming.$host\n"
        self.handlers = [
            self._host("h-1", HANDLER, more, island),
            self._host("h-2", HANDLER, more, *others),
            self._host("h-3", HANDLER, more, *cluster.nodes),
        ]

    def _host(self, name, program, more, *nodes):
        options = f"[DEFAULT]\ntransport_url = {url(*nodes)}\n{more}"
        process = HostProcess(
            self._root / name,
            program,
            connection_uri="test:///default",
            host=name,
            options=options,
        )
        process.start_soon()
        self._stack.callback(process.stop)
        return process

    def check_receives(self, handler):
        def receives():
            instance_uuid = str(uuid.uuid4())
            self._nova.publish(instance_uuid, handler.host, {KEY: "0"})
            try:
                return wait_until(lambda: handler.record(instance_uuid), 3, "it was received")
            except TimeoutError:
                return None

        wait_until(receives, TIMEOUT_S, f"{handler.host} receives events")

    def check_pushes(self):
        path = f"/v1/allocations/{GUEST}"

        def arrives():
            body = {"allocation": {"vcpu_pinning": "0"}}
            if self.plane.api.request("PUT", path, body).status not in (200, 201):
                return None
            try:
                return wait_until(
                    lambda: self.plane.api.get(path)["status"] != "pending", 3, "it arrived"
                )
            except TimeoutError:
                return None

        wait_until(arrives, TIMEOUT_S, "the executor gets pushes")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with BrokerCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def cloud(cluster, tmp_path_factory):
    with ExitStack() as stack:
        yield Cloud(cluster, tmp_path_factory.mktemp("cloud"), stack)


@stories("handling", ["pause_minority", "autoheal", "ignore"])
def test_after_a_partition_all_messages_are_received_again(cluster, cloud, handling):
    cluster.handle_partitions(handling)
    for handler in cloud.handlers:
        cloud.check_receives(handler)
    cloud.check_pushes()
    island = cluster.nodes[0]
    cluster.cut_off(island)
    cloud.check_receives(cloud.handlers[1])
    cluster.heal(island)
    if handling == "ignore":
        # Its nodes stay islands until that is done; see RabbitMQ's documentation.
        cluster.restart_app(island)
    cluster.wait_whole()
    for handler in cloud.handlers:
        cloud.check_receives(handler)
    cloud.check_pushes()
