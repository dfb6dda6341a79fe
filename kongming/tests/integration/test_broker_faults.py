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

"""RabbitMQ refuses, closes, withdraws: how the services react, and what they log.

libvirt is its test driver: no guest is needed here.
"""

from contextlib import closing
import re
from secrets import token_hex
import sqlite3
import subprocess
import time
import uuid

import pytest

from kongming.executor.store.store import FILE_NAME, Store
from kongming.tests.soak.publisher import Publisher
from kongming.tests.soak.world import Event
from kongming.tests.testbed.broker import Broker, is_strict, nova_queues
from kongming.tests.testbed.control_plane import ControlPlane
from kongming.tests.testbed.daemon import EXECUTOR, HANDLER, HostProcess
from kongming.tests.testbed.nova import Nova
from kongming.tests.testbed.process import find_program, wait_until
from kongming.tests.thorough import stories

KEY = "kongming-vcpu-pinning"
USER, PASSWORD = "kongming", "secret-of-a-test"
#: Longer than a service waits, a few times, for a file that is locked: BUSY_S each time.
CONSUMER_TIMEOUT_S, BUSY_S = 60, 5
# All that is logged is lines of ours, each of which begins so.
LINE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \d+ (INFO|WARNING|ERROR) kongming\.\S+ \["
)

pytestmark = pytest.mark.usefixtures("user")


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """One that takes back soon what is not acknowledged."""
    settings = {"consumer_timeout": 1000 * CONSUMER_TIMEOUT_S}
    with Broker(tmp_path_factory.mktemp("rabbitmq"), tls=True, settings=settings) as broker:
        broker.add_user(USER, PASSWORD)
        broker.tick_each(500)
        yield broker


@pytest.fixture
def user(broker):
    """The services' user, as it should be; whatever a test has taken from it comes back."""
    yield
    if not broker.answers():
        broker.start()
    broker.change_password(USER, PASSWORD)
    broker.permit(USER)


class Host:
    """A host's service, whose log is read from where the test began."""

    def __init__(self, root, broker, program=HANDLER, *, tls=False, more="", **nova):
        self.name = f"host-{uuid.uuid4().hex[:8]}"
        port = broker.tls_port if tls else broker.port
        self.queue = f"kongming.{self.name}"
        self.process = HostProcess(
            root / self.name,
            program,
            connection_uri="test:///default",
            host=self.name,
            options=f"[DEFAULT]\ntransport_url = rabbit://{USER}:{PASSWORD}@localhost:{port}/{nova_queues()}\n"
            f"[notification_handler]\npool = kongming.$host\n"
            f"exchange = {nova.get('exchange', 'nova')}\n{more}",
        )
        self.process.start()
        self._from = len(self.process.log())
        self._nova = Nova(broker.transport_url(), **nova)

    def lines(self):
        return self.process.log()[self._from :].splitlines()

    def logged(self, words):
        return [line for line in self.lines() if words in line]

    def wait_logged(self, words, times=1):
        wait_until(lambda: len(self.logged(words)) >= times, 90, f"{words!r} in the log")

    def publish(self):
        instance_uuid = str(uuid.uuid4())
        self._nova.publish(instance_uuid, self.name, {KEY: "0"})
        return instance_uuid

    def check_receives(self):
        instance_uuid = self.publish()
        wait_until(lambda: self.process.record(instance_uuid), 60, "an event was received")

    def check_lines(self):
        assert [line for line in self.lines() if not LINE.match(line)] == []
        assert PASSWORD not in self.process.log()

    def end(self):
        assert self.process.stop() == 0


@pytest.fixture
def host(tmp_path, broker):
    host = Host(tmp_path, broker)
    yield host
    host.check_lines()
    host.end()


def test_an_event_that_can_not_be_stored_waits_in_its_queue_and_is_requeued_once(host, broker):
    path = host.process.state_path / FILE_NAME
    with closing(sqlite3.connect(path, isolation_level=None)) as locked:
        locked.execute("BEGIN EXCLUSIVE")
        published = [host.publish() for _ in range(3)]
        host.wait_logged("Events wait in their queue")
        # Nobody listens, so nothing is delivered again and again.
        wait_until(lambda: broker.queues()[host.queue] == (3, 0, 0), 120, "they are requeued")
        locked.execute("ROLLBACK")
    host.wait_logged("Messages are accepted again")
    for instance_uuid in published:
        wait_until(lambda one=instance_uuid: host.process.record(one), 60, "it was kept")
    wait_until(lambda: broker.queues()[host.queue][:2] == (0, 0), 60, "all is acknowledged")
    assert len(host.logged(" ERROR ")) == 1
    with closing(Store(host.process.state_path, create=False)) as store:
        # Once each, however often it came.
        assert [len(store.history(each)) for each in published] == [1, 1, 1]


@pytest.mark.slow
def test_a_quorum_queue_loses_no_event_during_repeated_outages_of_the_store(tmp_path, broker):
    limit = 3
    broker.run(
        "rabbitmqctl set_policy --apply-to queues quorum '^kongming\\.' "
        f"'{{\"delivery-limit\":{limit}}}'"
    )
    quorum = "[oslo_messaging_rabbit]\nrabbit_quorum_queue = true\n"
    # Then Nova's exchange is durable, too.
    host = Host(tmp_path, broker, more=quorum, exchange="nova-quorum", durable=True)
    path = host.process.state_path / FILE_NAME
    with closing(sqlite3.connect(path, isolation_level=None)) as locked:
        locked.execute("BEGIN EXCLUSIVE")
        published = [host.publish() for _ in range(5)]
        host.wait_logged("Events wait in their queue")
        # It is tried again and again, for longer than RabbitMQ would wait so many times.
        deadline = time.monotonic() + (limit + 2) * BUSY_S
        wait_until(lambda: time.monotonic() > deadline, 60, "all that time it was unavailable")
        assert host.process.stop() == 0
        locked.execute("ROLLBACK")
    host.process.start()
    for instance_uuid in published:
        wait_until(lambda one=instance_uuid: host.process.record(one), 60, "it was kept")
    host.check_lines()
    host.end()
    broker.run("rabbitmqctl clear_policy quorum")


def test_a_connection_that_was_closed_and_returns_at_once_is_no_outage(host, broker):
    broker.close_connections("maintenance")
    host.check_receives()
    assert host.logged("RabbitMQ") == []


@stories("different", [1, 12])
def test_repeated_events_do_not_stop_a_host_from_listening(host, broker, different):
    publisher = Publisher(broker.transport_url(), "nova")
    events = [
        Event("instance.update", "x", "x", str(uuid.uuid4()), {}, time.time(), token_hex())
        for _ in range(different)
    ]
    # More than RabbitMQ sends before some are acknowledged.
    for _ in range(300 // different):
        for event in events:
            publisher.publish(event)
    assert publisher.flush()
    publisher.close()
    host.check_receives()
    wait_until(lambda: broker.queues()[host.queue][:2] == (0, 0), 60, "all is acknowledged")


def test_a_queue_that_was_deleted_is_declared_again_and_logged_once(host, broker):
    broker.delete_queue(host.queue)
    host.wait_logged("RabbitMQ has lost what this service subscribes to")
    host.check_receives()
    (line,) = host.logged("RabbitMQ")
    assert " WARNING " in line
    assert f"(queue {host.queue})" in line


def test_revoked_permissions_are_one_line_and_retried(host, broker):
    broker.permit(USER, read="^$")
    broker.delete_queue(host.queue)
    host.wait_logged("RabbitMQ rejects the subscription")

    # The queue may be declared; to bind it the exchange must be read.
    def refused():
        return (broker.root / "rabbitmq.log").read_text().count("access_refused")

    began = refused()
    wait_until(lambda: refused() >= began + 2, 60, "it retries again and again")
    broker.permit(USER)
    host.wait_logged("RabbitMQ is available again")
    host.check_receives()
    lacking, back, lost = host.logged("RabbitMQ")
    assert " ERROR " in lacking
    assert "RabbitMQ has lost" in lost
    # RabbitMQ 4 names the access.
    access = "read access" if is_strict() else "access"
    assert f"a permission is missing (ACCESS_REFUSED - {access} to exchange 'nova'" in lacking
    assert " INFO " in back


def test_a_password_that_was_changed_in_an_outage_is_reported_as_the_cause(host, broker):
    broker.stop()
    host.wait_logged("RabbitMQ is unavailable (nothing listens on its port: is RabbitMQ running?)")
    broker.start()
    broker.change_password(USER, "another")
    broker.close_connections("it may have been quick")
    host.wait_logged("it rejects the user or the password")
    broker.change_password(USER, PASSWORD)
    host.wait_logged("RabbitMQ is available again")
    host.check_receives()
    assert len(host.logged("RabbitMQ is unavailable")) == 1
    assert len(host.logged("RabbitMQ rejects the subscription")) == 1


def test_a_user_that_was_deleted_while_connected(host, broker):
    broker._control("delete_user", USER)
    try:
        host.wait_logged("it rejects the user or the password")
    finally:
        broker.add_user(USER, PASSWORD)
    host.wait_logged("RabbitMQ is available again")
    host.check_receives()
    # Added again, the user has no permissions for a moment, which may be logged, too.
    assert len(host.logged("it rejects the user or the password")) == 1
    assert len(host.logged("RabbitMQ is available again")) == 1


def test_an_untrusted_certificate_and_a_missing_file_are_reported(tmp_path, broker):
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(broker.ca_file.read_bytes())
    more = f"[oslo_messaging_rabbit]\nssl = true\nssl_ca_file = {trusted}\n"
    host = Host(tmp_path, broker, tls=True, more=more)
    openssl = (find_program("openssl", "openssl"), "req", "-x509", "-nodes", "-newkey", "rsa:2048")
    subprocess.run(
        [*openssl, "-subj", "/CN=another", "-keyout", tmp_path / "key", "-out", trusted],
        check=True,
        capture_output=True,
    )
    broker.close_connections("another certificate")
    host.wait_logged("its certificate is not trusted (self-signed certificate)")
    trusted.unlink()
    host.wait_logged(f"[oslo_messaging_rabbit] ssl_ca_file {trusted}: No such file or directory")
    trusted.write_bytes(broker.ca_file.read_bytes())
    host.wait_logged("RabbitMQ is available again")
    host.check_receives()
    host.check_lines()
    host.end()


@pytest.mark.slow
def test_no_service_passes_on_the_output_of_the_driver(tmp_path, broker):
    url = f"rabbit://{USER}:{PASSWORD}@localhost:{broker.port}/{nova_queues()}"
    with ControlPlane(tmp_path / "control", transport_url=url, conductors=1) as control:
        host = Host(tmp_path, broker, EXECUTOR, more="[executor]\npull_interval = 1\n")
        (conductor,) = control.conductors
        began = len(conductor.log()), len(control.api.process.log.read_text())
        path = f"/v1/allocations/{uuid.uuid4()}"

        def put(cpu):
            body = {"allocation": {"vcpu_pinning": str(cpu)}}
            assert control.api.request("PUT", path, body).status in (200, 201)

        put(0)
        broker.stop()
        put(1)
        host.wait_logged("RabbitMQ is unavailable")
        host.wait_logged("No conductor is responding")
        broker.start()
        broker.change_password(USER, "another")
        broker.close_connections("another password")
        host.wait_logged("it rejects the user or the password")
        put(2)
        broker.change_password(USER, PASSWORD)
        host.wait_logged("A conductor is available again")
        conductor.wait_log("RabbitMQ is available again")
        put(3)
        host.check_lines()
        lines = conductor.log()[began[0] :] + control.api.process.log.read_text()[began[1] :]
        assert PASSWORD not in lines
        ours = [line for line in lines.splitlines() if re.match(r"\d{4}-\d\d-\d\d ", line)]
        assert len(ours) > 3
        assert [line for line in ours if not LINE.match(line)] == []
        assert "Traceback" not in lines
        host.end()
