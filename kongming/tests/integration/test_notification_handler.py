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

"""The service on real parts: events in, the kernel's word on the threads out."""

import json
from pathlib import Path
import uuid

import kombu
import pytest

from kongming.tests import captures
from kongming.tests.integration.conftest import KEY, everywhere
from kongming.tests.testbed import threads
from kongming.tests.testbed.broker import Broker, is_strict, kombu_url
from kongming.tests.testbed.nova import Nova
from kongming.tests.testbed.process import free_port, wait_until
from kongming.tests.thorough import stories

TOKEN = "gAAAAABsecret-token"


def publish_raw(cloud, body, content_type="application/json"):
    """Publish bytes as they are, past oslo.messaging."""
    with kombu.Connection(kombu_url(cloud.broker.transport_url())) as connection:
        connection.Producer().publish(
            body,
            exchange=cloud.exchange,
            routing_key="versioned_notifications.info",
            content_type=content_type,
            content_encoding="utf-8",
        )


def test_a_created_guest_is_pinned_and_reported(cloud, cpus):
    first, last = cpus[0], cpus[-1]
    guest = cloud.guest(vcpus=4)
    assert guest.affinity() == everywhere(guest)
    with cloud.daemon() as daemon:
        cloud.publish(guest, f"0-2:{first};3:{first},{last},^{first}")
        guest.wait_affinity({0: {first}, 1: {first}, 2: {first}, 3: {last}})
        daemon.wait_log(f"Instance {guest.uuid}: vCPU pins 0-2: ")
        wait_until(lambda: daemon.record(guest.uuid).status == "applied", 10, "applied")
        assert "WARNING" not in daemon.log()
        assert "ERROR" not in daemon.log()


def test_a_guest_whose_vcpus_share_a_thread_is_refused(cloud, cpus):
    guest = cloud.guest(single_threaded=True)
    before = guest.affinity()
    with cloud.daemon() as daemon:
        cloud.publish(guest, str(cpus[-1]))
        daemon.wait_log(f"Instance {guest.uuid}: refused (pinning_unsupported): ")
        assert "in a single thread" in daemon.log()
        assert guest.affinity() == before
        assert "baseline" not in guest.domain.XMLDesc()


def test_three_services_each_process_their_events_only(cloud, cpus):
    hosts = ["compute-1", "compute-2", "compute-3"]
    guests = {host: cloud.guest() for host in hosts}
    daemons = {host: cloud.daemon(host) for host in hosts}
    for daemon in daemons.values():
        daemon.start_soon()
    for daemon in daemons.values():
        daemon.wait_ready()
    for host, guest in guests.items():
        cloud.publish(guest, str(cpus[-1]), host=host)
    for host, guest in guests.items():
        guest.wait_on(cpus[-1])
        cloud.settle(daemons[host])
    for host, daemon in daemons.items():
        for other, guest in guests.items():
            assert (f"Instance {guest.uuid}: " in daemon.log()) == (host == other)
            assert (daemon.record(guest.uuid) is not None) == (host == other)


def test_an_event_of_a_service_killed_between_storing_and_applying_is_not_lost(cloud, cpus):
    guest = cloud.guest()
    daemon = cloud.daemon()
    daemon.start()
    cloud.libvirtd.pause()
    try:
        cloud.publish(guest, str(cpus[-1]))
        wait_until(lambda: daemon.record(guest.uuid), 30, "the event was stored")
        daemon.kill()
    finally:
        cloud.libvirtd.resume()
    assert guest.affinity() == everywhere(guest)
    daemon.start()
    guest.wait_on(cpus[-1])


def test_an_event_that_came_while_the_service_was_down_is_not_lost(cloud, cpus):
    guest = cloud.guest()
    daemon = cloud.daemon()
    daemon.start()
    assert daemon.stop() == 0
    cloud.publish(guest, str(cpus[-1]))
    daemon.start()
    guest.wait_on(cpus[-1])


def test_the_broker_restarted(cloud, cpus):
    guest = cloud.guest()
    with cloud.daemon() as daemon:
        cloud.broker.restart()
        daemon.wait_log("RabbitMQ is available again")
        assert daemon.log().count("RabbitMQ is unavailable") == 1
        # The plain queue may be declared before the pool's is bound again.
        wait_until(lambda: consumers(cloud, daemon) == 1, 30, "the service listens again")
        cloud.publish(guest, str(cpus[-1]))
        guest.wait_on(cpus[-1])
        assert "Traceback" not in daemon.log()


def consumers(cloud, daemon):
    queue = cloud.broker.queues().get(f"{cloud.exchange}.{daemon.host}")
    return queue.consumers if queue else 0


@pytest.mark.needs_mounts
def test_after_a_restart_of_libvirtd_all_desired_allocations_are_checked(cloud, cpus):
    guest = cloud.guest()
    with cloud.daemon() as daemon:
        # Where a cgroup confines a thread to less, nobody else can move it.
        cloud.publish(guest, ",".join(map(str, cpus)))
        wait_until(lambda: daemon.record(guest.uuid), 30, "the event was stored")
        wait_until(lambda: daemon.record(guest.uuid).status == "applied", 30, "applied")
        cloud.libvirtd.stop()
        daemon.wait_log("was lost; waiting for libvirt")
        threads.set_affinity(threads.vcpu_threads(guest.uuid)[0], [cpus[0]])
        late = str(uuid.uuid4())
        cloud.nova.publish(late, daemon.host, {KEY: "0"})
        wait_until(lambda: daemon.record(late), 30, "events are taken meanwhile")
        assert guest.affinity()[0] == {cpus[0]}
        cloud.libvirtd.start()
        guest.wait_affinity(everywhere(guest))
        daemon.wait_log("libvirt is available again")
        assert daemon.log().count("is unavailable") == 1


def test_repeated_restarts_of_libvirtd_leave_no_file_open(cloud):
    def files():
        return len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir()))

    with cloud.daemon() as daemon:
        before = files()
        for times in range(1, 4):
            cloud.libvirtd.stop()
            cloud.libvirtd.start()
            daemon.wait_log("libvirt is available again", times=times)
        wait_until(lambda: files() <= before, 30, "lost connections are closed")


def test_broker_and_libvirtd_away_at_the_start(cloud, cpus):
    guest = cloud.guest()
    daemon = cloud.daemon()
    cloud.broker.stop()
    cloud.libvirtd.stop()
    try:
        daemon.start_soon()
        daemon.wait_log("RabbitMQ is unavailable")
        daemon.wait_log(f"libvirt at {cloud.libvirtd.uri} is unavailable")
        assert not daemon.is_ready()
    finally:
        cloud.broker.start()
        cloud.libvirtd.start()
    daemon.wait_ready(90)
    assert daemon.log().count("RabbitMQ is unavailable") == 1
    assert daemon.log().count(f"libvirt at {cloud.libvirtd.uri} is unavailable") == 1
    cloud.publish(guest, str(cpus[-1]))
    guest.wait_on(cpus[-1])


def test_sigterm_ends_the_service_and_loses_no_event(cloud, cpus):
    guests = [cloud.guest() for _ in range(6)]
    daemon = cloud.daemon()
    daemon.start()
    for guest in guests:
        cloud.publish(guest, str(cpus[-1]))
    assert daemon.stop(timeout=10) == 0
    assert daemon.log().rstrip().endswith("unreadable ones")
    daemon.start()
    for guest in guests:
        guest.wait_on(cpus[-1])


def test_sigterm_ends_the_service_even_if_all_peers_are_unavailable(cloud, cpus):
    guest = cloud.guest()
    daemon = cloud.daemon()
    daemon.start()
    cloud.broker.stop()
    cloud.libvirtd.pause()
    try:
        daemon.wait_log("RabbitMQ is unavailable")
        assert daemon.stop(timeout=10) == 0
    finally:
        cloud.libvirtd.resume()
        cloud.broker.start()
    assert guest.affinity() == everywhere(guest)


def test_sighup_reloads_mutable_options_and_loses_no_event(cloud, cpus):
    guests = [cloud.guest(vcpus=1) for _ in range(6)]
    with cloud.daemon() as daemon:
        pid = daemon.process.pid
        assert " DEBUG " not in daemon.log()
        text = daemon.conf.read_text()
        for number, guest in enumerate(guests):
            debug = "[DEFAULT]\ndebug = true\n" if number % 2 == 0 else "[DEFAULT]\n"
            daemon.conf.write_text(text.replace("[DEFAULT]\n", debug))
            daemon.reload()
            cloud.publish(guest, str(cpus[-1]))
            daemon.wait_log("Configuration reloaded", times=number + 1)
        for guest in guests:
            guest.wait_on(cpus[-1])
        daemon.conf.write_text(text.replace("[DEFAULT]\n", "[DEFAULT]\ndebug = true\n"))
        daemon.reload()
        daemon.wait_log("Configuration reloaded", times=len(guests) + 1)
        cloud.publish(guests[1], str(cpus[0]))
        daemon.wait_log(" DEBUG kongming.")
        daemon.conf.write_text("this is no configuration")
        daemon.reload()
        daemon.wait_log("Configuration reload failed")
        cloud.publish(guests[0], str(cpus[0]))
        guests[0].wait_on(cpus[0])
        assert daemon.process.running
        assert daemon.process.pid == pid
        assert consumers(cloud, daemon) == 1


def test_unreadable_messages_are_skipped(cloud, cpus):
    guest = cloud.guest()
    good = next(iter(captures.bodies("01-create")))
    text = json.dumps(good)
    inner = json.loads(good["oslo.message"])
    del inner["_unique_id"]
    token = {"_context_auth_token": TOKEN}

    def wrapped(message):
        return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)})

    unreadable = [
        text[: len(text) // 2] + TOKEN,
        f"{TOKEN} is no JSON",
        "",
        "[1, 2, 3]",
        '"text"',
        "17",
        "null",
        json.dumps({"oslo.version": "99.0", "oslo.message": "{}"} | token),
        json.dumps({"oslo.version": "2.0", "oslo.message": TOKEN}),
        json.dumps({"oslo.version": "2.0", "oslo.message": 5} | token),
        wrapped([TOKEN]),
        wrapped(token),
        wrapped(inner | token | {"payload": TOKEN}),
        wrapped(inner | token | {"event_type": None}),
        wrapped(inner | token | {"publisher_id": 5}),
        wrapped(token | {"event_type": "instance.create.end", "payload": {"x": "y" * 1_000_000}}),
        "x" * 1_000_000 + TOKEN,
    ]
    with cloud.daemon() as daemon:
        for body in unreadable:
            publish_raw(cloud, body)
        publish_raw(cloud, text, content_type="text/plain")
        publish_raw(cloud, text, content_type="application/x-python-serialize")
        cloud.publish(guest, str(cpus[-1]))
        guest.wait_on(cpus[-1])
        log = daemon.log()
        warnings = [line for line in log.splitlines() if " WARNING " in line]
        assert all("Unreadable notification" in line for line in warnings)
        # One of each kind.
        reasons = [
            line.partition("notification: ")[2].partition("; ignored")[0] for line in warnings
        ]
        assert 5 <= len(reasons) == len(set(reasons))
        assert "Traceback" not in log
        assert " ERROR " not in log
        assert TOKEN not in log
        assert max(len(line) for line in log.splitlines()) < 400
        assert daemon.stop() == 0
        assert f"and {len(unreadable) + 2} unreadable ones" in daemon.log()
        queue = cloud.broker.queues()[f"{cloud.exchange}.{daemon.host}"]
        assert (queue.ready, queue.unacked) == (0, 0)


def test_a_priority_that_is_no_text_is_no_obstacle(cloud, cpus):
    guest = cloud.guest()
    with cloud.daemon():
        payload = cloud.nova.payload(guest.uuid, "compute-1", {KEY: str(cpus[-1])})
        message = {"event_type": "instance.create.end", "publisher_id": "nova-compute:compute-1"}
        publish_raw(cloud, json.dumps(message | {"payload": payload, "priority": 5}))
        guest.wait_on(cpus[-1])


def test_all_captured_notifications_are_handled(cloud):
    with cloud.daemon() as daemon:
        for step in captures.STEPS:
            for body in captures.bodies(step):
                publish_raw(cloud, json.dumps(body))
        marker = cloud.settle(daemon)
        assert " WARNING " not in daemon.log()
        assert " ERROR " not in daemon.log()

        def left():
            lines = [line for line in daemon.log().splitlines() if marker not in line]
            return sum("has left this host, forgotten" in line for line in lines)

        wait_until(lambda: left() == 2, 30, "two have left")


def test_a_guest_that_restarts_without_any_event_is_placed_again(cloud, cpus):
    guest = cloud.guest()
    with cloud.daemon():
        cloud.publish(guest, str(cpus[-1]))
        guest.wait_on(cpus[-1])
        guest.domain.destroy()
        guest.start()
        guest.wait_on(cpus[-1])


def test_a_separate_topic_needs_no_pool(cloud, cpus):
    guest = cloud.guest()
    options = "topics = kongming.compute-1\n[DEFAULT]\n"
    daemon = cloud.daemon()
    text = daemon.conf.read_text().replace(
        f"pool = {cloud.exchange}.$host\n", "pool =\n" + options
    )
    daemon.conf.write_text(text)
    url = cloud.broker.transport_url()
    nova = Nova(url, exchange=cloud.exchange, topic="kongming.compute-1")
    with daemon:
        nova.publish(guest.uuid, "compute-1", {KEY: str(cpus[-1])})
        guest.wait_on(cpus[-1])


def test_a_transport_url_of_a_vhost_and_several_hosts(cloud, cpus):
    guest = cloud.guest()
    cloud.broker.add_vhost("cloud")
    url = cloud.broker.transport_url("cloud")
    nobody = f"rabbit://guest:guest@127.0.0.1:{free_port()},"
    nova = Nova(url, exchange=cloud.exchange)
    with cloud.daemon(transport_url=url.replace("rabbit://", nobody)):
        nova.publish(guest.uuid, "compute-1", {KEY: str(cpus[-1])})
        guest.wait_on(cpus[-1])


def test_a_broker_with_tls(cloud, cpus, tmp_path_factory):
    guest = cloud.guest()
    with Broker(tmp_path_factory.mktemp("tls"), tls=True) as broker:
        nova = Nova(broker.transport_url(), exchange=cloud.exchange)
        with cloud.daemon(
            transport_url=broker.transport_url().replace(str(broker.port), str(broker.tls_port)),
            options=f"[oslo_messaging_rabbit]\nssl = true\nssl_ca_file = {broker.ca_file}\n",
        ):
            nova.publish(guest.uuid, "compute-1", {KEY: str(cpus[-1])})
            guest.wait_on(cpus[-1])


def test_durable_queues(cloud, cpus):
    guest = cloud.guest()
    durable = "[oslo_messaging_rabbit]\namqp_durable_queues = true\n"
    quorum = "[oslo_messaging_rabbit]\nrabbit_quorum_queue = true\n"
    # Nova's plain queue, which others have declared, is that of the vhost.
    cloud.broker.add_vhost("durable")
    url = cloud.broker.transport_url("durable")
    first = cloud.daemon(options=durable, transport_url=url)
    first.start()
    assert first.stop() == 0
    name = f"{cloud.exchange}.{first.host}"
    other = cloud.daemon(options=quorum, transport_url=url)
    other.start_soon()
    other.wait_log(f"inequivalent arg 'x-queue-type' for queue '{name}'")
    other.wait_log("as they were when it was declared, or delete it")
    assert other.stop() == 0
    first = cloud.daemon(options=durable, transport_url=url)
    nova = Nova(url, exchange=cloud.exchange, durable=True)
    nova.publish(guest.uuid, "compute-1", {KEY: str(cpus[-1])})
    wait_until(
        lambda: cloud.broker.queues("durable")[name].ready == 1, 30, "the broker has the event"
    )
    cloud.broker.restart()
    first.start()
    guest.wait_on(cpus[-1])


@pytest.mark.skipif(is_strict(), reason="this RabbitMQ refuses queues that are not durable")
def test_nova_decides_whether_its_exchange_is_durable(cloud):
    cloud.broker.add_vhost("mixed")
    url = cloud.broker.transport_url("mixed")
    durable = "[oslo_messaging_rabbit]\namqp_durable_queues = true\n"
    with cloud.daemon(options=durable, transport_url=url):
        """The exchange is durable from now on."""
    for options in ("", durable):
        with cloud.daemon("compute-2", options, url) as other:
            # A queue from before that is not durable is used as it is.
            assert ("is used unchanged" in other.log()) == bool(options)


@stories(
    ("conf", "message"),
    [
        ("[DEFAULT]\nstate_path = /proc/nowhere\n", "create the directory"),
        (
            "[oslo_messaging_notifications]\ntransport_url = nonsense://\n",
            "does not begin with a known driver",
        ),
        ("[executor]\nworkers = many\n", "workers"),
        ("[DEFAULT]\nhost = a b\n", "host"),
        ("no section\n", "line 3: an option must be written"),
    ],
)
def test_a_wrong_configuration_is_one_clear_line(cloud, conf, message):
    daemon = cloud.daemon()
    state = "" if "state_path" in conf else f"[DEFAULT]\nstate_path = {daemon.state_path}\n"
    daemon.conf.write_text(state + conf)
    daemon.process.start()
    wait_until(lambda: not daemon.process.running, 30, "it ended")
    assert daemon.process.terminate() in (1, 2)
    assert message in daemon.log()
    assert "Traceback" not in daemon.log()


def test_the_same_user_may_not_run_the_service_twice(cloud):
    with cloud.daemon() as daemon:
        second = cloud.daemon()
        second.process.log = second.process.log.with_name("second")
        second.process.start()
        wait_until(lambda: not second.process.running, 30, "the second one ended")
        assert "another Kongming service uses" in second.log()
        assert daemon.process.running


def test_an_idle_service_has_one_process(cloud):
    with cloud.daemon() as daemon:
        pid = daemon.process.pid
        assert Path(f"/proc/{pid}/task/{pid}/children").read_text() == ""
