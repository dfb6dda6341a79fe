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

"""What only a host of several NUMA nodes can show. Runs inside a virtual host.

``tools/test integration -k virtual_host`` boots the hosts and runs this there.
"""

import contextlib
import os

import libvirt
import pytest

from kongming.tests.integration.conftest import Cloud, Guest, libvirtd  # noqa: F401
from kongming.tests.testbed import host_cpus, memory
from kongming.tests.testbed.guest import destroy
from kongming.tests.testbed.virtual_host import Shape

MEMORY_MIB = 64
ALLOCATED = {"memory_mib": MEMORY_MIB, "allocated": True}


def pytest_collection_modifyitems():
    if Shape.of_this_host() is None:
        raise pytest.UsageError(
            "kongming/tests/numa takes CPUs away from its host, so it runs in a virtual one only: "
            "tools/test integration -k virtual_host"
        )


@pytest.fixture(scope="session")
def shape():
    """What this host was asked to be like."""
    return Shape.of_this_host()


@pytest.fixture(scope="session")
def nodes():
    """The CPUs of each node; all are online."""
    return host_cpus.node_cpus()


@pytest.fixture(scope="session")
def last(nodes):
    """The CPU that is taken away, the last one: it is on the last node."""
    return max(nodes[max(nodes)])


@pytest.fixture(scope="session")
def connection(libvirtd):  # noqa: F811
    # Errors are looked at by the tests.
    libvirt.registerErrorHandler(lambda *_: None, None)
    return libvirt.open(libvirtd.uri)


@pytest.fixture
def start(connection):
    """Start guests: they end with the test."""
    with contextlib.ExitStack() as stack:

        def start_one(**options):
            guest = NumaGuest(connection, **options)
            stack.callback(destroy, guest.domain)
            return guest

        yield start_one


@pytest.fixture(scope="session")
def single_threaded(connection):
    """A guest without threads, and so without groups, of its vCPUs' own."""
    guest = NumaGuest(connection, single_threaded=True, **ALLOCATED)
    yield guest
    destroy(guest.domain)


@pytest.fixture
def offline(shape):
    """Take a CPU away as long as a context lasts; all is well again after the test."""
    yield host_cpus.offline
    if shape.cgroup == "v1":
        host_cpus.repair_v1_cpusets()


class Machine:
    """The machine's broker, as it is seen from in here."""

    def transport_url(self):
        return os.environ["KONGMING_TEST_TRANSPORT_URL"]


@pytest.fixture
def cloud(libvirtd, tmp_path):  # noqa: F811
    cloud = Cloud(Machine(), libvirtd, tmp_path)
    yield cloud
    cloud.close()


class NumaGuest(Guest):
    """A guest whose memory can be asked for and changed by libvirt's means."""

    def set_memory(self, **parameters):
        self.domain.setNumaParameters(parameters, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def memory(self):
        """libvirt's word on it: the mode and the nodes."""
        told = self.domain.numaParameters(libvirt.VIR_DOMAIN_AFFECT_LIVE)
        return told["numa_mode"], told["numa_nodeset"]

    def nodes(self):
        """The nodes that hold its memory, by the kernel's word."""
        return set(memory.memory_kib(self.uuid))
