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

"""Real parts: a RabbitMQ, a libvirtd with QEMU guests, and the installed service."""

from collections import Counter
import contextlib
import itertools
import logging
from pathlib import Path
import shutil
import tempfile
import uuid

import libvirt
import pytest

from kongming import exception
from kongming.hypervisor.connection import run_event_loop
from kongming.tests.testbed import threads
from kongming.tests.testbed.abilities import abilities
from kongming.tests.testbed.broker import Broker
from kongming.tests.testbed.daemon import CONDUCTOR, EXECUTOR, HANDLER, Daemon
from kongming.tests.testbed.guest import destroy, start_guest
from kongming.tests.testbed.libvirtd import Libvirtd
from kongming.tests.testbed.mariadb import PASSWORD, USER, MariaDB, grant
from kongming.tests.testbed.nova import Nova
from kongming.tests.testbed.postgresql import PostgreSQL
from kongming.tests.testbed.preloaded import Preloaded, sharing
from kongming.tests.testbed.process import wait_until
from kongming.tests.testbed.session_libvirtd import private_libvirtd

KEY = "kongming-vcpu-pinning"
HOOK = Path(__file__).parents[3] / "etc/libvirt/kongming-libvirt-hook"

# Those of the tests' own publishers, while the broker is restarted under them.
logging.getLogger("oslo.messaging._drivers.impl_rabbit").setLevel(logging.CRITICAL)

_number = itertools.count()

#: Modules that take long with few tests: at the end, other processes would wait for them.
LONG = ("test_virtual_host", "test_listening", "test_soak", "test_standalone_faults", "test_hung")


def pytest_collection_modifyitems(items):
    """Begin with the modules that take longest."""
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path.stem not in LONG, -tests[item.path]))


#: What services and commands import only when they run; the choice of a backend comes first.
MODULES = (
    "kongming.cmd.backend",
    "gunicorn.workers.gthread",
    "kombu.transport.pyamqp",
    "kongming.api.application",
    "kongming.conductor.service",
    "kongming.db.migration",
    "kongming.metrics.endpoint",
    "kongming.notification.service",
    "kongming.standalone.service",
    "oslo_messaging._drivers.impl_rabbit",
)


@pytest.fixture(scope="session", autouse=True)
def loaded_once():
    """The services, the API's server and kongming-manage, whose modules are loaded once."""
    programs = (HANDLER, EXECUTOR, CONDUCTOR, "gunicorn", "kongming-manage")
    groups = ("kongming.manage", "kongming.terminal")
    with sharing(Preloaded(*programs, groups=groups, modules=MODULES)):
        yield


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    with Broker(tmp_path_factory.mktemp("rabbitmq")) as broker:
        yield broker


@pytest.fixture(scope="session")
def libvirtd(tmp_path_factory):
    """The first host's libvirtd: the one that can do the most on this machine."""
    run_event_loop()
    with contextlib.ExitStack() as ends:
        root = tmp_path_factory.mktemp("libvirt")
        if abilities().no_mounts is not None:
            # It runs as another user, who can't get at pytest's folders.
            folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="kongming-")))
            folder.chmod(0o711)
            root = folder / "libvirt"
        yield ends.enter_context(private_libvirtd(root, abilities()))


@pytest.fixture(scope="session")
def bare(tmp_path_factory):
    """Another host's libvirtd, without the hook."""
    with Libvirtd(tmp_path_factory.mktemp("bare")) as libvirtd:
        yield libvirtd


@pytest.fixture(scope="session")
def hooked(tmp_path_factory):
    """Another host's libvirtd, with the hook."""
    root = tmp_path_factory.mktemp("hooked")
    hooks = root / "etc/hooks/qemu.d"
    hooks.mkdir(parents=True)
    shutil.copy(HOOK, hooks)
    with Libvirtd(root) as libvirtd:
        yield libvirtd


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    """Servers of databases, by kind; their user may make others."""
    root = tmp_path_factory.mktemp("databases")
    granted = [f"{grant(USER, PASSWORD)} WITH GRANT OPTION"]
    with (
        MariaDB(root / "mariadb", statements=granted) as mariadb,
        PostgreSQL(root / "postgresql") as postgresql,
    ):
        yield {"mariadb": mariadb, "postgresql": postgresql}


@pytest.fixture(scope="session")
def cpus():
    """The host's online CPUs: a pin takes effect only where there are two of them."""
    online = sorted(threads.online_cpus())
    assert len(online) >= 2, "on a single CPU a pin can't be distinguished from none"
    return online


class Guest:
    """A running QEMU guest and the judgement of the kernel on it."""

    def __init__(self, connection, **options):
        self.uuid = str(uuid.uuid4())
        self._connection = connection
        self._options = options
        self.start()

    def start(self):
        name = f"kongming-test-{self.uuid[:8]}"
        self.domain = start_guest(self._connection, name, uuid=self.uuid, **self._options)

    def hard_reboot(self, **options):
        """Stop it and start it from a new definition, as Nova does; so does its resize."""
        self.domain.destroy()
        self._options |= options
        self.start()

    def affinity(self):
        return threads.vcpu_affinity(self.uuid)

    def wait_affinity(self, expected):
        """Wait until the threads of the vCPUs may run exactly there."""
        expected = {vcpu: frozenset(cpus) for vcpu, cpus in expected.items()}
        wait_until(lambda: self.affinity() == expected, 30, f"affinity {expected}")

    def pin(self, cpu, vcpu=0):
        """Pin a vCPU as another user of libvirt would."""
        online = threads.online_cpus()
        self.domain.pinVcpu(vcpu, tuple(number == cpu for number in range(max(online) + 1)))

    def move_thread(self, vcpu, cpu):
        """Move a vCPU's thread behind libvirt's back, as taskset does."""
        threads.set_affinity(threads.vcpu_threads(self.uuid)[vcpu], [cpu])

    def wait_on(self, cpu):
        """Wait until all vCPUs may run on that one CPU only."""
        self.wait_affinity({vcpu: [cpu] for vcpu in self.affinity()})


class Cloud:
    """One host of a cloud: its service, its guests, and Nova's notifications."""

    def __init__(self, broker, libvirtd, root):
        self.broker = broker
        self.libvirtd = libvirtd
        self.exchange = f"nova-{next(_number)}"
        self.nova = Nova(broker.transport_url(), exchange=self.exchange)
        self._root = root
        self._connection = None
        self._guests = []
        self._daemons = []

    def daemon(self, host="compute-1", options="", transport_url=None):
        daemon = Daemon(
            self._root / host,
            transport_url=transport_url or self.broker.transport_url(),
            connection_uri=self.libvirtd.uri,
            host=host,
            options=f"[notification_handler]\nexchange = {self.exchange}\n"
            f"pool = {self.exchange}.$host\n{options}",
        )
        self._daemons.append(daemon)
        return daemon

    def guest(self, **options):
        if self._connection is None or not self._connection.isAlive():
            self._connection = self.libvirtd.connect()
        self._guests.append(Guest(self._connection, **options))
        return self._guests[-1]

    def publish(self, guest, value, host="compute-1", event_type="instance.create.end"):
        metadata = {} if value is None else {KEY: value}
        self.nova.publish(guest.uuid, host, metadata, event_type)

    def update(self, guest, host="compute-1", **values):
        """Publish an event with metadata: ``vcpu_pinning="1"`` and the like."""
        metadata = {f"kongming-{key.replace('_', '-')}": value for key, value in values.items()}
        self.nova.publish(guest.uuid, host, metadata, "instance.update")

    def settle(self, daemon):
        """Publish an event of a guest of its own and wait until it was answered.

        Events are handled in their order: all before it have been, too.

        :returns: the guest's UUID; its release may still be logged.
        """
        marker = str(uuid.uuid4())
        self.nova.publish(marker, daemon.host, {KEY: "0"})
        wait_until(lambda: daemon.record(marker), 30, "the marker's event was handled")
        self.nova.publish(marker, daemon.host, {}, "instance.delete.end")
        return marker

    def close(self):
        for daemon in self._daemons:
            daemon.stop()
        if not self.libvirtd_answers():
            self.libvirtd.start()
        connection = self.libvirtd.connect()
        for domain in connection.listAllDomains():
            destroy(domain)

    def libvirtd_answers(self):
        try:
            self.libvirtd.connect().close()
        except (libvirt.libvirtError, exception.HypervisorUnavailable):
            return False
        return True


@pytest.fixture
def cloud(broker, libvirtd, tmp_path):
    cloud = Cloud(broker, libvirtd, tmp_path)
    yield cloud
    cloud.close()


@pytest.fixture(scope="module")
def installation(broker, tmp_path_factory):
    """A control plane that all tests of a module share."""
    # It imports this module.
    from kongming.tests.integration.site import Installation

    with Installation(broker, tmp_path_factory.mktemp("control")) as installation:
        yield installation


@pytest.fixture
def site(installation, broker, libvirtd, tmp_path):
    """Hosts of a test's own at the shared control plane."""
    from kongming.tests.integration.site import Site

    site = Site(installation, broker, libvirtd, tmp_path)
    yield site
    site.close()


def applied(daemon, guest):
    """Wait until the service has applied the request, and return its record."""
    return status(daemon, guest, "applied")


def status(daemon, guest, expected):
    """Wait until the request for a guest has this status, and return the record."""

    def reached():
        record = daemon.record(guest.uuid)
        return record if record and record.status == expected else None

    try:
        return wait_until(reached, 30, f"status {expected}")
    except TimeoutError as error:
        error.add_note(f"{daemon.record(guest.uuid)}\n{daemon.log()[-4000:]}")
        raise


def everywhere(guest):
    return {vcpu: threads.online_cpus() for vcpu in guest.affinity()}


@pytest.fixture(scope="module")
def hosts(broker, libvirtd, hooked, tmp_path_factory):
    # Imported here: it is made of what this module has.
    from kongming.tests.integration.two_hosts import TwoHosts

    hosts = TwoHosts(broker, libvirtd, hooked, tmp_path_factory.mktemp("hosts"))
    yield hosts
    hosts.close()


@pytest.fixture(scope="module")
def source(hosts, request):
    """The service of the host that guests leave, with the ``OPTIONS`` of the module."""
    with hosts.source(request.module.OPTIONS) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def destination(hosts, request):
    """The service of the host where guests arrive, with the ``OPTIONS`` of the module."""
    with hosts.destination(request.module.OPTIONS) as daemon:
        yield daemon
