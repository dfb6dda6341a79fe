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

"""kongming-status, with a real RabbitMQ and a real libvirtd."""

import socket
import uuid

import certifi
import pytest

from kongming.tests.integration.conftest import KEY, Cloud
from kongming.tests.integration.site import Installation, Site
from kongming.tests.integration.status import COMMAND, HOOKED, Status
from kongming.tests.testbed.broker import Broker, is_strict, nova_queues
from kongming.tests.testbed.control_plane import ControlPlane
from kongming.tests.testbed.process import run, wait_until
from kongming.tests.thorough import stories

pytestmark = pytest.mark.needs_mounts

USER, PASSWORD = "watcher", "top%secret@x"
QUOTED = "top%25secret%40x"


SUCCESS, WARNING, FAILURE, UNEXPECTED = 0, 1, 2, 255


@pytest.fixture(scope="module")
def cloud(broker, libvirtd, tmp_path_factory):
    """One for all: the command changes nothing."""
    cloud = Cloud(broker, libvirtd, tmp_path_factory.mktemp("cloud"))
    yield cloud
    cloud.close()


@pytest.fixture(scope="module")
def stopped(cloud):
    """A service that has handled an event, and has stopped."""
    return receive(cloud)


def receive(cloud):
    with cloud.daemon() as daemon:
        marker = str(uuid.uuid4())
        cloud.nova.publish(marker, daemon.host, {KEY: "0"})
        wait_until(lambda: daemon.record(marker), 30, "the event was handled")
    return daemon


def replaced(daemon, *pairs):
    """Write another kongming.conf beside the service's, and return its path."""
    text = daemon.conf.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path = daemon.conf.with_name("other.conf")
    path.write_text(text)
    return path


def test_a_host_in_order_has_no_findings(stopped):
    status = Status(stopped.conf)
    assert status.code == SUCCESS, status.details
    assert not status.errors
    assert status.details["Role"].startswith("checked as handler (configured: ")
    assert status.results.keys() >= {"libvirt", "Message broker", "Nova's notifications"}


def test_controllers_and_executors_in_order_have_no_findings(cloud, tmp_path):
    with Installation(cloud.broker, tmp_path / "plane", conductors=1) as installation:
        site = Site(installation, cloud.broker, cloud.libvirtd, tmp_path)
        host = site.executor()
        host.start()
        controller = Status(site.plane.conf)
        executor = Status(host.conf, "--role", "executor")
        handler = Status(host.conf, "--role", "handler")
        site.close()
    assert (controller.code, executor.code) == (SUCCESS, SUCCESS), executor.details
    assert controller.details["Role"].startswith("checked as controller (configured: ")
    assert controller.results.keys() == {
        "Service's user", "Role", "Configuration", "Time zones", "Database",
        "Message broker (calls)", "Nova's API (all hosts)",
    }  # fmt: skip
    assert "the exchange kongming exists" in controller.details["Message broker (calls)"]
    assert "the exchange kongming exists" in executor.details["Message broker (calls)"]
    assert executor.results["libvirt"] == executor.results["State path"] == SUCCESS
    # The same machine is not in order for another role.
    assert handler.code == WARNING


def test_an_exchange_that_no_service_has_made_is_reported(cloud, tmp_path):
    cloud.broker.add_vhost("unused")
    url = cloud.broker.transport_url("unused")
    plane = ControlPlane(tmp_path, transport_url=url, conductors=0)
    plane.manage("db", "sync")
    status = Status(plane.conf)
    assert status.code == WARNING
    assert "start kongming-conductor" in status.only("Message broker (calls)")


def test_the_output_for_people_is_a_table(stopped):
    shown = run([*HOOKED, COMMAND, "--config-file", stopped.conf, "upgrade", "check"])
    assert shown.returncode == SUCCESS
    assert "| Check: Message broker" in shown.stdout


def test_missing_events_of_nova_are_reported(broker, libvirtd, tmp_path):
    daemon = Cloud(broker, libvirtd, tmp_path).daemon()
    status = Status(daemon.conf)
    assert status.code == WARNING
    assert "does not exist" in status.details["Message broker"]
    assert "not known whether Nova" in status.details["Nova's notifications"]
    assert not daemon.state_path.exists()


def test_another_exchange(cloud, stopped):
    conf = replaced(stopped, (f"exchange = {cloud.exchange}\n", "exchange = nowhere\n"))
    status = Status(conf)
    assert status.code == WARNING
    assert "the exchange nowhere does not exist" in status.only("Message broker")


def test_a_queue_of_another_kind_is_reported(stopped):
    """A durable queue that exists otherwise is used unchanged; a quorum queue can't be."""
    quorum = "[oslo_messaging_rabbit]\nrabbit_quorum_queue = true\n[libvirt]"
    status = Status(replaced(stopped, ("[libvirt]", quorum)))
    assert status.code == FAILURE
    # Where others are refused, the queue is durable, as a quorum queue is.
    others = ", rabbit_transient_quorum_queue and rabbit_transient_queues_ttl" * is_strict()
    assert f"rabbit_quorum_queue{others} as they were" in status.only("Message broker")
    if not is_strict():
        durable = quorum.replace("rabbit_quorum_queue", "amqp_durable_queues")
        status = Status(replaced(stopped, ("[libvirt]", durable)))
        assert status.code == WARNING
        assert "inequivalent arg 'durable'" in status.only("Message broker")


def test_the_kind_of_novas_queues_is_read_from_nova_conf(cloud, stopped, tmp_path):
    nova = tmp_path / "nova.conf"
    nova.write_text("[oslo_messaging_rabbit]\nrabbit_quorum_queue = true\n")
    named = f"[guard]\nnova_config_file = {nova}\n[libvirt]"
    own = ("compute-1", "compute-9")
    before = cloud.broker.queues()
    status = Status(replaced(stopped, ("[libvirt]", named), own))
    assert "it accepts a queue of the configured kind (quorum)" in status.details["Message broker"]
    # What was declared to try it is deleted again.
    assert cloud.broker.queues() == before


@stories(
    ("old", "new", "message"),
    [
        ("guest:guest", "guest:topsecret", "refuses user or password"),
        ("/\n[notification_handler]", "/absent\n[notification_handler]", "virtual host"),
    ],
)
def test_a_broker_that_does_not_let_us_in(stopped, old, new, message):
    status = Status(replaced(stopped, (old, new)))
    assert status.code == FAILURE
    assert message in status.only("Message broker")


def test_the_broker_is_away(cloud, stopped):
    cloud.broker.stop()
    try:
        status = Status(stopped.conf)
    finally:
        cloud.broker.start()
        # The exchange went with the broker.
        receive(cloud)
    assert status.code == FAILURE
    assert "can't be reached (Connection refused)" in status.only("Message broker")


def test_an_unresponsive_broker_is_reported(stopped, cloud):
    with socket.create_server(("127.0.0.1", 0)) as unresponsive:
        there = f":{unresponsive.getsockname()[1]}/"
        status = Status(replaced(stopped, (f":{cloud.broker.port}/", there)))
    assert status.code == FAILURE
    assert "does not respond in time" in status.only("Message broker")


def test_an_unavailable_host_of_two_is_reported(stopped, cloud):
    there = f"127.0.0.1:{cloud.broker.port}"
    status = Status(replaced(stopped, (f"@{there}", f"@{there},guest:guest@127.0.0.1:1")))
    assert status.code == WARNING
    details = status.only("Message broker")
    assert "127.0.0.1:1 can't be reached" in details
    assert f"{there} accepts the connection" in details


def test_libvirtd_is_away(cloud, stopped):
    cloud.libvirtd.stop()
    try:
        status = Status(stopped.conf)
    finally:
        cloud.libvirtd.start()
    assert status.code == FAILURE
    assert "no process listens at" in status.only("libvirt")


def test_libvirtd_hangs(cloud, stopped):
    cloud.libvirtd.pause()
    try:
        status = Status(stopped.conf)
    finally:
        cloud.libvirtd.resume()
    assert status.code == FAILURE
    assert "did not answer within 8 s" in status.only("libvirt")


def test_another_driver_of_libvirt(stopped, cloud):
    status = Status(replaced(stopped, (cloud.libvirtd.uri, "test:///default")))
    assert status.code == FAILURE
    assert "leads to libvirt's driver TEST, not QEMU" in status.details["libvirt"]


def test_an_invalid_configuration_is_reported(tmp_path):
    conf = tmp_path / "kongming.conf"
    conf.write_text("password is topsecret")
    status = Status(conf)
    assert status.code == UNEXPECTED
    assert status.errors.startswith(f"kongming-status: {conf}, line 1: ")
    assert status.errors.count("\n") == 1


@pytest.fixture(scope="module")
def managed(tmp_path_factory):
    with Broker(tmp_path_factory.mktemp("managed"), tls=True, management=True) as broker:
        broker.add_user(USER, PASSWORD)
        yield broker


@pytest.fixture
def watched(cloud, managed):
    """A kongming.conf for the broker with the management API, with TLS."""
    url = f"rabbit://{USER}:{QUOTED}@localhost:{managed.tls_port}/{nova_queues()}"
    daemon = cloud.daemon(
        "watched",
        transport_url=url,
        options=f"[oslo_messaging_rabbit]\nssl = true\nssl_ca_file = {managed.ca_file}\n[status]\n"
        f"management_url = http://{USER}:{QUOTED}@127.0.0.1:{managed.management_port}\n",
    )
    daemon.name = f"{cloud.exchange}.{daemon.host}"
    return daemon


def limits(status):
    return status.details["Queue limits"]


def test_queues_that_grow_without_limit(managed, watched):
    assert f"the queue {watched.name} does not exist" in limits(Status(watched.conf))
    with watched:
        status = Status(watched.conf)
        assert status.code == WARNING
        assert "accepts the connection" in status.details["Message broker"]
        assert f"no policy limits the queue {watched.name}" in limits(status)
        managed.set_policy("ours", r"^nova-\d+\.", expires=600000)
        wait_until(
            lambda: f"the queue {watched.name} has a limit" in limits(Status(watched.conf)),
            60,
            "the policy is found",
        )


@pytest.mark.slow
def test_a_queue_without_a_consumer_is_reported(managed, watched):
    plain = "versioned_notifications.info"
    assert f"the queue {plain} does not exist" in limits(Status(watched.conf))
    managed.evaluate(_declare(plain))
    wait_until(
        lambda: f"the queue {plain} has no consumer" in limits(Status(watched.conf)),
        60,
        "it is found",
    )
    managed.set_policy("undrained", r"\.info$", max_length=100)
    wait_until(
        lambda: f"the queue {plain} has a consumer or a limit" in limits(Status(watched.conf)),
        60,
        "the policy is found",
    )


def _declare(name):
    return (
        f'{{new, _}} = rabbit_amqqueue:declare({{resource, <<"/">>, queue, <<"{name}">>}}, '
        "false, false, [], none, <<>>), ok"
    )


def test_a_management_api_that_does_not_let_us_in(watched):
    conf = replaced(watched, (f"http://{USER}:{QUOTED}", f"http://{USER}:topsecret"))
    status = Status(conf)
    assert status.code == FAILURE
    assert "refuses user or password" in limits(status)


def test_a_missing_management_api_is_reported(managed, watched):
    conf = replaced(watched, (f"127.0.0.1:{managed.management_port}", "127.0.0.1:1"))
    status = Status(conf)
    assert status.code == FAILURE
    assert "management API at http://127.0.0.1:1 can't be reached" in limits(status)


def test_a_certificate_that_is_not_trusted(managed, watched):
    conf = replaced(watched, (str(managed.ca_file), certifi.where()))
    status = Status(conf)
    assert status.code == FAILURE
    assert "fails at TLS (CERTIFICATE_VERIFY_FAILED)" in status.details["Message broker"]


def test_a_port_without_tls(managed, watched):
    conf = replaced(watched, (f":{managed.tls_port}/", f":{managed.port}/"))
    status = Status(conf)
    assert status.code == FAILURE
    assert "fails at TLS" in status.details["Message broker"]
