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

"""Live migration between two hosts of one Nova, there and back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import shutil

import pytest

from kongming.conf.notification_handler import VERSIONED
from kongming.tests.nova.aspects import FIRST, NOTHING, WITHIN
from kongming.tests.nova.conftest import HOOK, STANDALONE, hook, with_hooks
from kongming.tests.nova.server import Server
from kongming.tests.testbed.daemon import HostProcess
from kongming.tests.testbed.libvirtd import Libvirtd
from kongming.tests.testbed.openstack import configuration, schemas
from kongming.tests.testbed.openstack.cloud import HOST
from kongming.tests.testbed.openstack.content import NUMA_FLAVOR, flavor
from kongming.tests.testbed.process import wait_until

TRIGGERS = (VERSIONED, STANDALONE)
SECOND_HOST = "compute-2"


@dataclass
class Host:
    """A compute host."""

    name: str
    libvirtd: Libvirtd
    daemon: HostProcess


@pytest.fixture(scope="module")
def hosts(bed, cloud, tmp_path_factory):
    """The first host and a second one, which has a libvirt and a service of its own."""
    root = with_hooks(tmp_path_factory.mktemp("second"))
    # Its disks are its own: Nova has them copied.
    disks = configuration.instances_path(bed.openstack.site)
    with Libvirtd(root, host_name=SECOND_HOST, folders=[disks]) as libvirtd:
        compute = bed.openstack.another_compute(SECOND_HOST, libvirtd)
        with (
            compute,
            bed.service(root / "kongming", cloud.trigger, compute, libvirtd) as daemon,
        ):
            schemas.discover_hosts(bed.openstack.site)
            first = Host(HOST, cloud.libvirtd, cloud.daemon)
            yield first, Host(SECOND_HOST, libvirtd, daemon)
            compute.stop()
            compute.forget()
    assert " ERROR " not in daemon.log()
    assert "Traceback" not in daemon.log()


@pytest.fixture(params=[True, False], ids=["hook", "no-hook"])
def hooked(hosts, request):
    """Whether both hosts have the hook."""
    if request.param:
        for host in hosts:
            shutil.copy(HOOK, hook(host.libvirtd.root))
    yield request.param
    for host in hosts:
        hook(host.libvirtd.root).unlink(missing_ok=True)


@contextmanager
def made(cloud, request, flavor) -> Iterator[Server]:
    server = cloud.server(request, flavor)
    yield server
    server.delete()


@pytest.fixture
def placed(cloud, hosts):
    """A running server that has got FIRST."""
    with made(cloud, FIRST, flavor(2)) as server:
        server.wait_placed(FIRST)
        yield server


def wait_handed_over(server, source, destination):
    def handed_over():
        here, there = destination.daemon.record(server.uuid), source.daemon.record(server.uuid)
        return here is not None and here.status == "applied" and there is None

    what = f"{destination.name} has placed the guest, and {source.name} has forgotten it"
    wait_until(handed_over, 60, what)


def test_a_guest_is_placed_on_the_destination_and_back_again(hosts, hooked, placed):
    for source, destination in (hosts, reversed(hosts)):
        placed.migrate(destination.name)
        placed.wait_placed(FIRST)
        wait_handed_over(placed, source, destination)


def test_with_the_hook_alone_a_guest_arrives_as_nova_defined_it(hosts, hooked, placed):
    first, second = hosts
    second.daemon.stop()
    placed.migrate(second.name)
    assert placed.looks() == (NOTHING if hooked else FIRST).looks(2)
    second.daemon.start()
    placed.wait_placed(FIRST)
    wait_handed_over(placed, first, second)


def test_a_request_that_is_withdrawn_on_the_destination_stays_so_on_the_way_back(
    cloud, hosts, placed
):
    first, second = hosts
    placed.migrate(second.name)
    placed.wait_placed(FIRST)
    placed.request(NOTHING)
    placed.wait_placed(NOTHING)
    wait_until(lambda: second.daemon.record(placed.uuid) is None, 60, "nothing is kept of it")
    placed.migrate(first.name)
    cloud.settle()
    assert placed.looks() == NOTHING.looks(2)


def test_a_guest_with_a_numa_topology_is_placed_within_its_new_grant(cloud, hosts):
    with made(cloud, WITHIN, NUMA_FLAVOR) as server:
        server.wait_placed(WITHIN)
        for source, destination in (hosts, reversed(hosts)):
            server.migrate(destination.name)
            server.wait_placed(WITHIN)
            wait_handed_over(server, source, destination)
