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

"""Whatever fails, and wherever the service is killed: nothing is left half done."""

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
import json
from pathlib import Path
import random
import subprocess
import uuid

import kombu
import libvirt
import pytest

from kongming import metadata
from kongming.executor.store import FILE_NAME
from kongming.tests import captures
from kongming.tests.integration.conftest import KEY, applied, everywhere, status
from kongming.tests.testbed import threads
from kongming.tests.testbed.faulty import Fault
from kongming.tests.testbed.process import wait_until

GUEST = "kongming.hypervisor.guest:Guest"
STORE = "kongming.executor.store:Store"
DOMAIN = "libvirt:virDomain"

#: Every point at which something is half done, on the way there: the note of
#: the baseline, then two vCPUs, the emulator, the shares and the quota.
ON_THE_WAY = [
    Fault(f"{STORE}.ask"),
    Fault(f"{STORE}.ask", after=True),
    Fault(f"{GUEST}.definition"),
    Fault(f"{GUEST}.keep_baseline"),
    Fault(f"{GUEST}.keep_baseline", after=True),
    *(Fault(f"{GUEST}.set", call=step, after=True) for step in range(1, 6)),
    Fault("kongming.executor.carry_out:_verify"),
    Fault(f"{STORE}.report"),
    Fault(f"{STORE}.report", after=True),
]

#: And on the way back to the baseline.
ON_THE_WAY_BACK = [
    Fault(f"{STORE}.ask", after=True),
    *(Fault(f"{GUEST}.set", call=step, after=True) for step in range(1, 6)),
    Fault(f"{GUEST}.keep_baseline"),
    Fault(f"{GUEST}.keep_baseline", after=True),
    Fault(f"{STORE}.forget"),
    Fault(f"{STORE}.forget", after=True),
]

#: The call of libvirt's that each step is.
STEPS = [
    Fault(f"{DOMAIN}.setMetadata", error=38),
    Fault(f"{DOMAIN}.pinVcpu", error=38),
    Fault(f"{DOMAIN}.pinVcpu", call=2, error=38),
    Fault(f"{DOMAIN}.pinVcpu", call=2, error=38, after=True),
    Fault(f"{DOMAIN}.pinEmulator", error=55),
    Fault(f"{DOMAIN}.setSchedulerParametersFlags", error=38),
    Fault(f"{DOMAIN}.setSchedulerParametersFlags", call=2, error=38),
]


@pytest.fixture(scope="module")
def asked(cpus):
    return {
        "vcpu_pinning": f"0:{cpus[0]};1:{cpus[-1]}",
        "emulator_pinning": str(cpus[-1]),
        "cpu_shares": "200",
        "vcpu_quota": "50%",
    }


def has(guest):
    """All that was asked for, by the kernel's word."""
    return (
        guest.affinity(),
        threads.affinity(threads.emulator_thread(guest.uuid)),
        guest.domain.schedulerParametersFlags(libvirt.VIR_DOMAIN_AFFECT_LIVE)["cpu_shares"],
        threads.vcpu_quotas(guest.uuid),
    )


def placed(cpus):
    quotas = dict.fromkeys((0, 1), (50_000, 100_000))
    return {0: {cpus[0]}, 1: {cpus[-1]}}, {cpus[-1]}, 200, quotas


def is_clean(guest):
    return "baseline" not in guest.domain.XMLDesc()


@pytest.mark.parametrize("fault", ON_THE_WAY, ids=str)
def test_killed_on_the_way(cloud, cpus, asked, fault):
    guest = cloud.guest()
    before = has(guest)
    daemon = cloud.daemon()
    daemon.start_faulty(fault)
    cloud.ask(guest, **asked)
    daemon.wait_killed()
    daemon.start()
    applied(daemon, guest)
    assert has(guest) == placed(cpus)
    cloud.ask(guest)
    wait_until(lambda: daemon.record(guest.uuid) is None, 30, "nothing is kept")
    assert has(guest) == before
    assert is_clean(guest)
    assert " ERROR " not in daemon.log()


@pytest.mark.parametrize("fault", ON_THE_WAY_BACK, ids=str)
def test_killed_on_the_way_back(cloud, cpus, asked, fault):
    guest = cloud.guest()
    before = has(guest)
    daemon = cloud.daemon()
    daemon.start()
    cloud.ask(guest, **asked)
    applied(daemon, guest)
    assert daemon.stop() == 0
    daemon.start_faulty(fault)
    cloud.ask(guest)
    daemon.wait_killed()
    daemon.start()
    wait_until(lambda: daemon.record(guest.uuid) is None, 30, "nothing is kept")
    assert has(guest) == before
    assert is_clean(guest)
    assert " ERROR " not in daemon.log()


@pytest.mark.parametrize("fault", STEPS, ids=str)
def test_an_error_of_libvirts_is_undone_told_and_tried_again(cloud, cpus, asked, fault):
    guest = cloud.guest()
    before = has(guest)
    daemon = cloud.daemon()
    daemon.start_faulty(fault)
    # The second attempt comes after a second: until then it is as it was.
    cloud.ask(guest, **asked)
    record = status(daemon, guest, "failed")
    seen, clean = has(guest), is_clean(guest)
    assert record.reason == "step_failed"
    assert f"libvirt error {fault.error}: an injected error" in record.message
    assert record.message.endswith("the guest is as it was before")
    assert (seen, clean) == (before, True)
    applied(daemon, guest)
    assert has(guest) == placed(cpus)
    assert daemon.log().count(" ERROR ") == 1


def test_what_can_not_be_undone_is_named_and_put_right_at_the_next_attempt(cloud, cpus, asked):
    guest = cloud.guest(single_threaded=True)
    daemon = cloud.daemon()
    # The quota has no effect on such a guest; the second change of the shares is their undoing.
    daemon.start_faulty(Fault(f"{DOMAIN}.setSchedulerParametersFlags", call=4, error=38))
    cloud.ask(guest, cpu_shares="200", vcpu_quota="50%")
    record = status(daemon, guest, "refused")
    assert "undone, except CPU shares (setting CPU shares to" in record.message
    cloud.ask(guest)
    wait_until(lambda: daemon.record(guest.uuid) is None, 30, "nothing is kept")
    assert is_clean(guest)


SEED = 20261124
HOST = "compute-1"
ENDS = ["instance.delete.end", "instance.live_migration_post.end", "instance.shelve_offload.end"]
LIVES = ["instance.create.end", "instance.update", "instance.power_on.end", "instance.reboot.end"]


def test_events_in_any_order_end_where_the_newest_says(cloud, cpus):
    """1,000 events of 20 guests, shuffled; each has the time at which it was sent."""
    rng = random.Random(SEED)
    guests = [cloud.guest(vcpus=1) for _ in range(20)]
    values = [None, str(cpus[0]), str(cpus[-1]), "nonsense", "8191"]
    begin = datetime.now(UTC) - timedelta(hours=1)
    events, newest = [], {}
    for number in range(1000):
        guest = rng.choice(guests)
        value = rng.choice(values)
        name = rng.choice(LIVES * 4 + ENDS)
        host = rng.choice([HOST] * 6 + ["compute-2"])
        if name == "instance.shelve_offload.end":
            host = None
        sent = begin + timedelta(seconds=number)
        events.append((guest, name, host, value, sent))
        if (name, host) != ("instance.live_migration_post.end", "compute-2"):
            # Where it has gone, and whether that is here, this one does not say.
            newest[guest.uuid] = (name, host, value)
    rng.shuffle(events)
    with cloud.daemon() as daemon:
        with kombu.Connection(amqp(cloud)) as connection:
            producer = connection.Producer()
            for event in events:
                publish(cloud, producer, *event)
        cloud.settle(daemon)

        def ends_right(guest):
            name, host, value = newest[guest.uuid]
            record = daemon.record(guest.uuid)
            if name in ENDS or host != HOST or value is None:
                # What a guest has that is elsewhere is nobody's business here.
                return record is None
            if value in ("nonsense", "8191"):
                return record is not None and record.status == "refused"
            done = record is not None and record.status == "applied"
            return done and guest.affinity() == {0: {int(value)}}

        for guest in guests:
            told = f"seed {SEED}: {newest[guest.uuid]}"
            wait_until(lambda guest=guest: ends_right(guest), 30, told)
        assert " ERROR " not in daemon.log()


def amqp(cloud):
    return cloud.broker.transport_url().replace("rabbit://", "amqp://") + "/"


def publish(cloud, producer, guest, name, host, value, sent):
    message = captures.message("01-create", "instance.create.end")
    data = message["payload"]["nova_object.data"]
    data |= {"uuid": guest.uuid, "host": host, "metadata": {} if value is None else {KEY: value}}
    message |= {
        "event_type": name,
        "publisher_id": f"nova-compute:{HOST}",
        "timestamp": sent.strftime("%Y-%m-%d %H:%M:%S.%f"),
        "_unique_id": uuid.uuid4().hex,
    }
    body = {"oslo.version": "2.0", "oslo.message": json.dumps(message)}
    key = "versioned_notifications.info"
    producer.publish(body, exchange=cloud.exchange, routing_key=key, serializer="json")


def test_nothing_is_lost_of_many_events(cloud, cpus):
    """One in a hundred is ours; memory does not grow over the second half."""
    guest = cloud.guest(vcpus=1)
    rounds, of_each = 10, 1000
    with cloud.daemon() as daemon:
        sizes = []
        sent = datetime.now(UTC) - timedelta(hours=1)
        with kombu.Connection(amqp(cloud)) as connection:
            producer = connection.Producer()
            for _ in range(rounds):
                for number in range(of_each):
                    ours = number % 100 == 99
                    sent += timedelta(milliseconds=10)
                    value = str(cpus[(number // 100) % len(cpus)])
                    host = HOST if ours else "compute-2"
                    event = (guest if ours else Stranger, "instance.update", host, value, sent)
                    publish(cloud, producer, *event)
                cloud.settle(daemon)
                sizes.append(resident_kib(daemon.process.pid))
        applied(daemon, guest)
        guest.wait_on(cpus[9 % len(cpus)])
        assert daemon.stop() == 0
        # Each settling is an event of this host, and one that ends its guest's stay.
        ours = rounds * of_each // 100 + 2 * rounds
        foreign = rounds * of_each - rounds * of_each // 100
        assert f"Ended after {ours} events of this host, {foreign} of others" in daemon.log()
        queue = cloud.broker.queues()[f"{cloud.exchange}.{daemon.host}"]
        assert (queue.ready, queue.unacked) == (0, 0)
        assert max(sizes[rounds // 2 :]) - sizes[rounds // 2] < 2048


class Stranger:
    """A guest of another host."""

    uuid = str(uuid.uuid4())


def resident_kib(pid):
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))


@contextmanager
def small_disk(path):
    """A file system of its own that is quickly full."""
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "kongming-test", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def test_a_full_disk(cloud, cpus):
    guest, other = cloud.guest(), cloud.guest()
    daemon = cloud.daemon()
    with small_disk(daemon.state_path), daemon:
        cloud.ask(guest, vcpu_pinning=str(cpus[-1]))
        applied(daemon, guest)
        full = daemon.state_path / "full"
        with pytest.raises(OSError, match="No space left"):
            full.write_bytes(bytes(2 << 20))
        for _ in range(3):
            cloud.ask(other, vcpu_pinning=str(cpus[-1]))
        daemon.wait_log("Events wait in their queue")
        assert "check that the directory is writable, its disk not full" in daemon.log()
        # What was placed is kept placed, as far as nothing has to be written.
        guest.pin(cpus[0])
        guest.wait_on(cpus[-1])
        assert other.affinity() == everywhere(other)
        full.unlink()
        other.wait_on(cpus[-1])
        applied(daemon, other)
        applied(daemon, guest)
        assert daemon.log().count("Events wait in their queue") == 1
        assert "Traceback" not in daemon.log()
        daemon.forget_store()
        assert daemon.stop() == 0


def test_a_file_that_is_damaged_while_it_is_used(cloud, cpus):
    guest, other = cloud.guest(), cloud.guest()
    with cloud.daemon() as daemon:
        cloud.ask(guest, vcpu_pinning=str(cpus[-1]))
        applied(daemon, guest)
        daemon.forget_store()
        for path in daemon.state_path.glob(f"{FILE_NAME}*"):
            path.write_bytes(b"garbage" * 10_000)
        cloud.ask(other, vcpu_pinning=str(cpus[-1]))
        daemon.wait_log("Events wait in their queue")
        assert "move it away" in daemon.log()
        assert daemon.process.running
        assert guest.affinity() == {0: {cpus[-1]}, 1: {cpus[-1]}}
        for path in daemon.state_path.glob(f"{FILE_NAME}*"):
            path.rename(path.with_name(f"damaged-{path.name}"))
        other.wait_on(cpus[-1])
        applied(daemon, other)
        cloud.ask(guest, vcpu_pinning=str(cpus[0]))
        guest.wait_on(cpus[0])
        assert "Traceback" not in daemon.log()


def test_a_file_that_is_damaged_at_the_start(cloud):
    daemon = cloud.daemon()
    daemon.state_path.mkdir()
    (daemon.state_path / FILE_NAME).write_bytes(b"garbage" * 10_000)
    daemon.process.start()
    wait_until(lambda: not daemon.process.running, 30, "it ended")
    assert daemon.process.terminate() == 1
    (line,) = [line for line in daemon.log().splitlines() if "CRITICAL" in line]
    assert "Can't start: " in line
    assert "move it away" in line
    assert "Traceback" not in daemon.log()


def test_what_a_tenant_writes_is_read_as_asked():
    # The story above rests on it: these two are refused, each in its own way.
    with pytest.raises(Exception, match="none of N"):
        metadata.parse({KEY: "nonsense"})
    assert metadata.parse({KEY: "8191"})
