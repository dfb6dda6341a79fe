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

"""Guests with dedicated CPUs: they are permuted, and Nova counts them as its own."""

import pytest

from kongming.conf.notification_handler import VERSIONED
from kongming.tests.nova.accounts import accounts
from kongming.tests.nova.aspects import CPUS, EMULATOR_PINNING, HIGH, LOW, NOTHING, VCPU_PINNING
from kongming.tests.nova.refusals import wait_refused
from kongming.tests.testbed import threads
from kongming.tests.testbed.openstack.content import DEDICATED_FLAVOR, MIXED_FLAVOR
from kongming.tests.testbed.process import wait_until

TRIGGERS = (VERSIONED,)
RELOADED = "Configuration reloaded"


@pytest.fixture
def host(cloud, last):
    """Call it with what nova.conf is to have of the host's CPUs; it has no servers then."""
    if last.server is not None and last.server.exists():
        last.server.delete()

    def configure(**options):
        cloud.openstack.compute.configure(**options)
        cloud.openstack.compute.restart()
        reloaded = cloud.daemon.log().count(RELOADED)
        cloud.daemon.reload()
        cloud.daemon.wait_log(RELOADED, times=reloaded + 1)

    yield configure
    configure()


@pytest.fixture
def made(cloud, host):
    """Make a server on a host so configured; its guest and the pins that Nova gave it."""
    servers = []

    def make(flavor, **options):
        host(**options)
        server = cloud.server(NOTHING, flavor)
        servers.append(server)
        return server, threads.vcpu_affinity(server.uuid)

    yield make
    for server in servers:
        server.delete()


def written(cpus):
    return ",".join(map(str, sorted(cpus)))


def request_pins(server, vcpus, **more):
    pins = ";".join(f"{vcpu}:{written(cpus)}" for vcpu, cpus in vcpus.items())
    server.set_metadata({VCPU_PINNING.key: pins, **more})


def wait_vcpus(server, vcpus):
    try:
        wait_until(lambda: threads.vcpu_affinity(server.uuid) == vcpus, 30, f"{vcpus}")
    except TimeoutError:
        assert threads.vcpu_affinity(server.uuid) == vcpus


def test_dedicated_cpus_are_permuted_and_stay_so(cloud, made):
    server, given = made(DEDICATED_FLAVOR, cpu_dedicated_set=f"{LOW},{HIGH}")
    assert sorted(map(written, given.values())) == [str(LOW), str(HIGH)]
    before = accounts(cloud.openstack, server.uuid)
    crossed = {0: given[1], 1: given[0]}
    request_pins(server, crossed, **{EMULATOR_PINNING.key: written(given[0])})
    wait_vcpus(server, crossed)
    emulator = threads.emulator_thread(server.uuid)
    wait_until(lambda: threads.affinity(emulator) == given[0], 30, "the emulator is placed")
    server.act("reboot", {"type": "HARD"}, ends="reboot.end")
    wait_vcpus(server, crossed)
    # Both vCPUs on one of them: no permutation.
    request_pins(server, {0: given[0], 1: given[0]})
    wait_refused(cloud, server, "dedicated_cpus")
    wait_vcpus(server, crossed)
    server.set_metadata({})
    wait_vcpus(server, given)
    assert accounts(cloud.openstack, server.uuid) == before


def test_a_vcpu_that_floats_beside_a_dedicated_one_stays_off_its_cpu(cloud, made):
    server, given = made(MIXED_FLAVOR, cpu_dedicated_set=str(HIGH), cpu_shared_set=str(LOW))
    assert given == {0: {LOW}, 1: {HIGH}}
    before = accounts(cloud.openstack, server.uuid)
    server.set_metadata({EMULATOR_PINNING.key: str(HIGH)})
    emulator = threads.emulator_thread(server.uuid)
    wait_until(lambda: threads.affinity(emulator) == {HIGH}, 30, "the emulator is placed")
    request_pins(server, {0: {HIGH}})
    wait_refused(cloud, server, "outside_grant")
    assert threads.vcpu_affinity(server.uuid) == given
    server.set_metadata({})
    wait_until(lambda: threads.affinity(emulator) == CPUS, 30, "the emulator is released")
    assert accounts(cloud.openstack, server.uuid) == before
