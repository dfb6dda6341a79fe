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

"""The stand-alone trigger with many executors: all is applied, and nothing grows with them.

RabbitMQ, MariaDB, conductors and API are real; of the executors only their
side of the bus is.
"""

from contextlib import contextmanager
import uuid

import pytest

from kongming.tests.databases import configuration, database
from kongming.tests.statements import Statements
from kongming.tests.testbed.control_plane import ControlPlane
from kongming.tests.testbed.mariadb import MariaDB
from kongming.tests.testbed.nova_api import NovaApi
from kongming.tests.testbed.process import wait_until
from kongming.tests.testbed.simulated_executors import SimulatedExecutors
from kongming.tests.testbed.tap import REPLY, Tap
from kongming.tests.thorough import stories

HOSTS = 100
FEW = 10


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory):
    with MariaDB(tmp_path_factory.mktemp("mariadb")) as mariadb:
        yield mariadb


@pytest.fixture(scope="module")
def nova():
    with NovaApi() as nova:
        yield nova


@pytest.fixture(scope="module")
def url(broker):
    broker.add_vhost("load")
    return broker.transport_url("load")


@pytest.fixture(scope="module")
def plane(mariadb, nova, url, tmp_path_factory):
    plane = ControlPlane(
        tmp_path_factory.mktemp("control"),
        transport_url=url,
        connection=mariadb.create("kongming"),
        conductors=2,
        options=nova.options(),
    )
    with plane:
        yield plane


@pytest.fixture
def cloud(nova, url, tmp_path):
    """Return a cloud of so many hosts, as a context: the instances, one on each of them."""

    @contextmanager
    def make(hosts):
        names = [f"compute-{uuid.uuid4().hex[:8]}" for _ in range(hosts)]
        guests = {name: [nova.add(name, {})] for name in names}
        with SimulatedExecutors(
            tmp_path / f"of-{hosts}", transport_url=url, guests=guests, interval=None
        ) as executors:
            executors.wait_asked()
            yield [instance for (instance,) in guests.values()]

    return make


def put(plane, path, body):
    answer = plane.api.request("PUT", path, body)
    assert answer.status in (200, 201), answer
    return answer.body


def body_of(instances, cpus):
    return {"allocations": {instance: {"vcpu_pinning": cpus} for instance in instances}}


def counts(plane, path):
    return plane.api.get(path)["counts"]


def test_a_map_of_all_hosts_is_applied_everywhere_and_released(plane, cloud):
    path = "/v1/allocation-maps/everywhere"
    with cloud(HOSTS) as instances:
        for cpus in ("0", "1"):
            created = put(plane, path, body_of(instances, cpus))
            assert created["instances"] == HOSTS
            wait_until(lambda: counts(plane, path) == {"applied": HOSTS}, 60, "all are applied")
        assert plane.api.request("DELETE", path).status == 202
        wait_until(lambda: plane.api.request("GET", path).status == 404, 60, "all are released")


@stories("hosts", [FEW, HOSTS])
def test_messages_do_not_grow_with_the_cloud(plane, cloud, url, hosts):
    path = f"/v1/allocation-maps/few-of-{hosts}"
    with cloud(hosts) as instances:
        with Tap(url) as tap:
            put(plane, f"/v1/allocations/{instances[0]}", {"allocation": {"vcpu_pinning": "0"}})
            sent = tap.wait_counts("report", 1)
        assert sent == {"changed": 1, "desired": 1, "report": 1, REPLY: 1}
        with Tap(url) as tap:
            put(plane, path, body_of(instances[1:FEW], "0"))
            sent = tap.wait_counts("report", FEW - 1)
        each = dict.fromkeys(("desired", "report", REPLY), FEW - 1)
        assert sent == {"changed": 1, **each}


def test_statements_grow_with_neither_instances_nor_hosts(mariadb):
    url = mariadb.create("statements")
    database(url).close()
    counted = Statements(configuration(url))
    try:
        # The first connection queries the server's version.
        counted.of_one()
        assert counted.of_map(1) == counted.of_map(10) == counted.of_map(HOSTS)
        with_few = counted.of_one()
        counted.add_hosts(HOSTS)
        assert counted.of_one() == with_few
        assert max(with_few.values()) <= 10
    finally:
        counted.close()
