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
import functools
import os

import libvirt
import pytest

from kongming.allocation import metadata
from kongming.tests.integration.conftest import Cloud, Guest, libvirtd  # noqa: F401
from kongming.tests.testbed import host_cpus, huge_pages, memory, threads
from kongming.tests.testbed.guest import destroy
from kongming.tests.testbed.process import wait_until
from kongming.tests.testbed.virtual_host import Shape

MEMORY_MIB = 64
ALLOCATED = {"memory_mib": MEMORY_MIB, "allocated": True}
TIMEOUT = 60
HUGE_PAGES = 48
"""On each node: for the guests that run at once."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    if Shape.of_this_host() is None:
        raise pytest.UsageError(
            "kongming/tests/numa takes CPUs away from its host, so it runs in a virtual one only: "
            "tools/test integration -k virtual_host"
        )
    # A guest takes long to start: tests that share one follow each other.
    places = [(item.path, _shared_guest(item)) for item in items]
    order = {place: number for number, place in enumerate(dict.fromkeys(places))}
    items.sort(key=lambda item: order[item.path, _shared_guest(item)])


def _shared_guest(item):
    return item.callspec.params.get("guest") if hasattr(item, "callspec") else None


@pytest.fixture(scope="session")
def shape():
    """The configured shape of this host."""
    return Shape.of_this_host()


@pytest.fixture(scope="session", autouse=True)
def reserved_pages():
    """Reserve huge pages before libvirt starts, which looks for them only then."""
    huge_pages.reserve(HUGE_PAGES)


@pytest.fixture(scope="session")
def nodes():
    """The CPUs of each node; all are online."""
    return host_cpus.node_cpus()


@pytest.fixture(scope="session")
def last(nodes):
    """The CPU that goes offline, the last one: it is on the last node."""
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
    """Have a CPU offline as long as a context lasts; all is well again after the test."""
    yield host_cpus.offline
    if shape.cgroup == "v1":
        host_cpus.repair_v1_cpusets()


class Machine:
    """The machine's broker, as it is reached from in here."""

    def transport_url(self):
        return os.environ["KONGMING_TEST_TRANSPORT_URL"]


@pytest.fixture
def cloud(libvirtd, tmp_path):  # noqa: F811
    cloud = Cloud(Machine(), libvirtd, tmp_path)
    yield cloud
    cloud.close()


@pytest.fixture
def update(cloud, daemon):
    """Update a guest's metadata and wait for the outcome of just that request."""

    def update(guest, expected="applied", **values):
        allocation = metadata.parse(
            {f"kongming-{key.replace('_', '-')}": value for key, value in values.items()}
        )
        cloud.update(guest, **values)

        def done():
            record = daemon.record(guest.uuid)
            if not values:
                return record is None
            return (
                record and record.requested == allocation and record.status == expected and record
            )

        try:
            return wait_until(done, TIMEOUT, f"{values} is {expected}")
        except TimeoutError as error:
            error.add_note(f"{daemon.record(guest.uuid)}\n{daemon.log()[-4000:]}")
            raise

    return update


def threads_of(guest):
    """The CPUs of each part of a guest, as the kernel shows them."""
    found = _threads(guest.uuid, guest.domain.ID())
    return {part: threads.affinity(thread) for part, thread in found.items()}


@functools.cache
def _threads(instance_uuid, _domain_id):
    """The thread of each part: to look for it takes long here."""
    return {
        **{f"vcpu {vcpu}": each for vcpu, each in threads.vcpu_threads(instance_uuid).items()},
        **{
            f"iothread {number}": each for number, each in threads.iothreads(instance_uuid).items()
        },
        **{f"vhost {at}": each for at, each in enumerate(threads.vhost_threads(instance_uuid))},
        "emulator": threads.emulator_thread(instance_uuid),
    }


class NumaGuest(Guest):
    """A guest whose memory can be read and changed by libvirt's means."""

    def set_memory(self, **parameters):
        self.domain.setNumaParameters(parameters, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def memory(self):
        """libvirt's word on it: the mode and the nodes."""
        parameters = self.domain.numaParameters(libvirt.VIR_DOMAIN_AFFECT_LIVE)
        return parameters["numa_mode"], parameters["numa_nodeset"]

    def nodes(self):
        """The nodes that hold its memory, as the kernel shows them."""
        return set(memory.memory_kib(self.uuid))
