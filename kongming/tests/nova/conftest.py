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

"""A whole real OpenStack, and the installed service on its compute host."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
import logging
from pathlib import Path
import time
import uuid

import pytest

from kongming.allocation import metadata
from kongming.allocation.request import Request as StoredRequest
from kongming.allocation.request import Source
from kongming.conf.notification_handler import LEGACY, TOPICS, VERSIONED
from kongming.executor.store.store import Store
from kongming.hypervisor.connection import run_event_loop
from kongming.notification.pending_lookups import PendingLookups
from kongming.tests.nova.aspects import FIRST, VCPU_PINNING, Request
from kongming.tests.nova.events import Events
from kongming.tests.nova.server import Server
from kongming.tests.testbed.broker import Broker
from kongming.tests.testbed.control_plane import ControlPlane
from kongming.tests.testbed.daemon import Daemon, ExecutorDaemon, HostProcess
from kongming.tests.testbed.libvirtd import Libvirtd
from kongming.tests.testbed.nova import Nova
from kongming.tests.testbed.openstack.cloud import HOST, OpenStack
from kongming.tests.testbed.openstack.compute import Compute
from kongming.tests.testbed.openstack.content import flavor
from kongming.tests.testbed.process import wait_until
from kongming.tests.testbed.threads import online_cpus

VHOST = "openstack"
PREFIX = "kongming-"
HOOK = Path(__file__).parents[3] / "etc/libvirt/kongming-libvirt-hook"
TWO_VCPUS = flavor(2)
STANDALONE = "standalone"
# Conductor and executor look that often, in seconds.
LOOK = 1

logging.getLogger("oslo.messaging._drivers.impl_rabbit").setLevel(logging.CRITICAL)


@dataclass
class Cloud:
    """OpenStack, its host's libvirt and Kongming's service."""

    openstack: OpenStack
    libvirtd: Libvirtd
    daemon: HostProcess
    events: Events
    nova: Nova | None
    trigger: str
    plane: ControlPlane | None = None
    _markers: set[str] = field(default_factory=set)

    def server(self, request: Request, flavor: str = TWO_VCPUS) -> Server:
        """Make a server; a guest of it runs on return."""
        put = None if self.plane is None else self.request_by_hand
        return Server(self.openstack, self.events, self.libvirtd.uri, request, flavor, put)

    def request_by_hand(self, instance_uuid: str, request: Request) -> None:
        """Request this and nothing else: over Kongming's API, or on the host if there is none."""
        if self.plane is None:
            self._request_as_operator(instance_uuid, request)
            return
        path = f"/v1/allocations/{instance_uuid}"
        if request.metadata:
            allocation = metadata.parse(request.metadata).to_json()
            answer = self.plane.api.request("PUT", path, {"allocation": allocation})
            assert answer.status in (200, 201), answer
        else:
            answer = self.plane.api.request("DELETE", path)
            assert answer.status in (202, 204, 404), answer

    def _request_as_operator(self, instance_uuid: str, request: Request) -> None:
        """Store what ``kongming-manage`` stores, without the second that the command takes."""
        store = Store(self.daemon.state_path, create=False)
        try:
            if request.metadata:
                requested = metadata.parse(request.metadata)
                stored = StoredRequest(Source.OPERATOR, requested, "operator", time.time())
                store.request(instance_uuid, stored)
            else:
                store.withdraw(instance_uuid, Source.OPERATOR, "operator")
        finally:
            store.close()

    @contextmanager
    def without_kongming(self) -> Iterator[None]:
        """Have nothing of Kongming run in the context."""
        self.daemon.stop()
        if self.plane is not None:
            self.plane.stop()
        yield
        if self.plane is not None:
            self.plane.start_missing()
        self.daemon.start()

    def settle(self):
        """Wait until Kongming has received, and handled, all that Nova had sent at the call.

        Events are handled in their order: after that of a marker, all before it have been.
        """
        if self.plane is not None:
            self._settle_api()
            return
        marker = str(uuid.uuid4())
        if self.trigger == LEGACY:
            payload = {"instance_id": marker, "host": HOST, "metadata": {}}
            self.nova.send("compute.instance.update", payload, f"compute.{HOST}")
            self._markers.add(marker)
            wait_until(lambda: marker in self._looked_up(), 30, "the marker's event was handled")
            wait_until(
                lambda: self._looked_up() <= self._markers, 30, "all lookups in Nova are done"
            )
            return
        self.nova.publish(marker, HOST, {VCPU_PINNING.key: "0"})
        wait_until(lambda: self.daemon.record(marker), 30, "the marker's event was handled")
        self.nova.publish(marker, HOST, {}, "instance.delete.end")
        wait_until(lambda: not self.daemon.record(marker), 30, "the marker was released")

    def wait_forgotten(self, server):
        """Wait until nothing is kept of a server."""
        self.settle()
        wait_until(lambda: self.daemon.record(server.uuid) is None, 30, "nothing is kept of it")

    def _settle_api(self):
        """Wait until the conductor has queried Nova, and the executor has called it since then."""
        assert self.plane is not None
        plane, now = self.plane, time.time()

        def heartbeat() -> float:
            host = plane.api.get(f"/v1/hosts/{HOST}")
            return datetime.fromisoformat(host["heartbeat_at"]).timestamp()

        wait_until(
            lambda: heartbeat() > now + 5 * LOOK,
            60,
            "there were heartbeats of the host again and again",
        )

    def _looked_up(self):
        # Nova knows no marker: it is queried for one again and again for a while.
        with PendingLookups(self.daemon.state_path, create=False) as lookups:
            return set(lookups.pending())


@dataclass
class Bed:
    """What all triggers share."""

    transport_url: str
    openstack: OpenStack
    libvirtd: Libvirtd
    events: Events

    def service(
        self,
        root: Path,
        trigger: str,
        compute: Compute | None = None,
        libvirtd: Libvirtd | None = None,
    ) -> HostProcess:
        """Return what Kongming runs on a compute host; a context manager.

        :param compute: Nova there; None: that of the first host, as for libvirtd
        """
        compute = compute or self.openstack.compute
        files = ",".join(map(str, compute.files))
        # As the documentation requires where Nova gives guests CPUs of their own.
        options = f"[guard]\nnova_config_file = {files}\n"
        if trigger == LEGACY:
            nova = self.openstack.site.nova_options()
            options += f"[notification_handler]\ntrigger = legacy\n{nova}"
        if trigger == STANDALONE:
            options += f"[executor]\npull_interval = {LOOK}\n"
        return (ExecutorDaemon if trigger == STANDALONE else Daemon)(
            root,
            transport_url=self.transport_url,
            connection_uri=(libvirtd or self.libvirtd).uri,
            host=compute.host,
            options=options,
        )


def with_hooks(root: Path) -> Path:
    """Return the folder of a libvirtd that runs what is put among its hooks, also later on.

    It looks for hooks at its start: if there are none, it never runs any.
    """
    hooks = hook(root).parent
    hooks.mkdir(parents=True)
    nothing = hooks / "nothing"
    nothing.write_text("#!/bin/sh\n")
    nothing.chmod(0o755)
    return root


def hook(root: Path) -> Path:
    """Return where the hook of Kongming stands in the folder of a libvirtd, if it does."""
    return root / "etc/hooks/qemu.d" / HOOK.name


@pytest.fixture(scope="session")
def bed(tmp_path_factory):
    assert len(online_cpus()) >= 2, "on a single CPU a pin can't be distinguished from none"
    run_event_loop()
    with (
        Broker(tmp_path_factory.mktemp("rabbitmq")) as broker,
        Libvirtd(with_hooks(tmp_path_factory.mktemp("libvirt"))) as libvirtd,
    ):
        broker.add_vhost(VHOST)
        transport_url = broker.transport_url(VHOST)
        with (
            OpenStack(
                tmp_path_factory.mktemp("openstack"),
                transport_url=transport_url,
                libvirtd=libvirtd,
            ) as openstack,
            Events(transport_url) as events,
        ):
            yield Bed(transport_url, openstack, libvirtd, events)


def pytest_generate_tests(metafunc):
    """Run each test with each trigger, but for modules and tests that name theirs."""
    named = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "cloud" in metafunc.fixturenames and "cloud" not in named:
        triggers = getattr(metafunc.module, "TRIGGERS", (VERSIONED, LEGACY, STANDALONE))
        metafunc.parametrize("cloud", triggers, indirect=True, scope="session")


@pytest.fixture(scope="session")
def cloud(bed, request, tmp_path_factory):
    trigger = request.param
    root = tmp_path_factory.mktemp(f"kongming-{trigger}")
    with (_standalone if trigger == STANDALONE else _notified)(bed, root, trigger) as cloud:
        yield cloud


@contextmanager
def _notified(bed: Bed, root: Path, trigger: str) -> Iterator[Cloud]:
    with bed.service(root, trigger) as daemon:
        nova = Nova(bed.transport_url, topic=TOPICS[trigger])
        yield Cloud(bed.openstack, bed.libvirtd, daemon, bed.events, nova, trigger)


@contextmanager
def _standalone(bed: Bed, root: Path, trigger: str) -> Iterator[Cloud]:
    often = f"[conductor]\npoll_interval = {LOOK}\npoll_full_interval = {LOOK}\n"
    with (
        ControlPlane(
            root / "control",
            transport_url=bed.transport_url,
            options=f"{bed.openstack.site.nova_options()}{often}",
        ) as plane,
        bed.service(root / "compute", trigger) as daemon,
    ):
        yield Cloud(bed.openstack, bed.libvirtd, daemon, bed.events, None, trigger, plane)


@pytest.fixture(autouse=True)
def _no_errors(cloud):
    """Nothing in a guest's ordinary life is an error to Kongming."""
    before = len(cloud.daemon.log())
    yield
    logged = cloud.daemon.log()[before:]
    assert " ERROR " not in logged
    assert "Traceback" not in logged


class Last:
    """The server of the test before, which the next goes on with if it is as it should be."""

    server: Server | None = None


@pytest.fixture(scope="session")
def last(cloud):
    return Last()


@pytest.fixture
def server(cloud, last):
    """A running server with two vCPUs that has got FIRST."""
    if not cloud.daemon.process.running:
        cloud.daemon.start()
    server = last.server
    if server is None or not _as_new(server):
        if server is not None and server.exists():
            server.delete()
        last.server = None
        server = last.server = cloud.server(FIRST)
    else:
        server.request(FIRST)
    server.wait_placed(FIRST)
    return server


def _as_new(server):
    if not server.exists() or server.status != "ACTIVE" or server.vcpus != 2:
        return False
    return server.domain().isActive()
