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

"""Many events in any order: what counts is the newest one of each guest."""

from concurrent.futures import ThreadPoolExecutor
import json
import random
import time
import uuid

import kombu
import pytest

from kongming.tests.integration.conftest import KEY, everywhere
from kongming.tests.integration.seed import SEED
from kongming.tests.testbed import threads
from kongming.tests.testbed.broker import kombu_url
from kongming.tests.testbed.guest import destroy
from kongming.tests.testbed.process import wait_until

HOST, OTHER = "compute-1", "compute-2"
GUESTS, EVENTS = 20, 1000

# Possible requests, by their outcome.
APPLIED, INVALID, UNKNOWN_CPU, NOTHING = "applied", "request_invalid", "cpu_unknown", "nothing"
#: Of an event by which the guest is no longer here.
GONE = "gone"

#: Event and its payload's host, where the metadata counts. The publisher is the same for
#: all: times of different ones do not show their order.
COUNTING = [
    ("instance.create.end", HOST),
    ("instance.update", HOST),
    ("instance.power_on.end", HOST),
    ("instance.reboot.end", HOST),
    ("instance.rebuild.end", OTHER),
    ("instance.live_migration_post_dest.end", HOST),
]
LEAVING = [
    ("instance.soft_delete.end", HOST),
    ("instance.soft_delete.end", OTHER),
    ("instance.live_migration_post.end", HOST),
    ("instance.shelve_offload.end", None),
    ("instance.update", None),
    ("instance.update", OTHER),
    ("instance.resize_finish.end", OTHER),
]
MEANINGLESS = [
    ("instance.create.start", HOST),
    ("instance.delete.start", HOST),
    ("instance.resize.end", HOST),
    ("instance.live_migration_post.end", OTHER),
]


class Publisher:
    """Publishes events that were sent at any time, in any order."""

    def __init__(self, cloud):
        self._cloud = cloud
        self._connection = kombu.Connection(kombu_url(cloud.broker.transport_url()))
        self._producer = self._connection.Producer()

    def publish(self, event, instance_uuid, metadata, sent_at):
        name, host = event
        message = {
            "_unique_id": uuid.uuid4().hex,
            "message_id": str(uuid.uuid4()),
            "event_type": name,
            "publisher_id": f"nova-compute:{HOST}",
            "priority": "INFO",
            "timestamp": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(sent_at))
            + f".{int(sent_at % 1 * 1e6):06d}",
            "payload": self._cloud.nova.payload(instance_uuid, host, metadata),
        }
        self._producer.publish(
            {"oslo.version": "2.0", "oslo.message": json.dumps(message)},
            exchange=self._cloud.exchange,
            routing_key="versioned_notifications.info",
            serializer="json",
        )

    def waiting(self, queue):
        """Count what was not yet sent to the service."""
        return self._connection.default_channel.queue_declare(queue, passive=True)[1]

    def close(self):
        self._connection.close()


@pytest.fixture
def publisher(cloud):
    publisher = Publisher(cloud)
    yield publisher
    publisher.close()


def metadata_of(kind, cpu):
    return {
        APPLIED: {KEY: str(cpu)},
        INVALID: {KEY: "1,x"},
        UNKNOWN_CPU: {KEY: "8191"},
        NOTHING: {"role": "db"},
    }[kind]


def test_the_newest_event_of_each_guest_counts(cloud, publisher, cpus):
    chance = random.Random(SEED)
    guests = [cloud.guest(vcpus=1) for _ in range(GUESTS)]
    # These never leave, so that all that is on them is known.
    staying = guests[: GUESTS // 2]
    expected = {}
    events = []
    begin = time.time() - 3600
    for number in range(EVENTS):
        guest = chance.choice(guests)
        what = chance.choices(["counting", "leaving", "meaningless"], [6, 2, 2])[0]
        if what == "leaving" and guest in staying:
            what = "counting"
        cpu = chance.choice(cpus)
        kind = chance.choice([APPLIED, APPLIED, INVALID, UNKNOWN_CPU, NOTHING])
        event = chance.choice(
            {"counting": COUNTING, "leaving": LEAVING, "meaningless": MEANINGLESS}[what]
        )
        events.append((event, guest.uuid, metadata_of(kind, cpu), begin + number))
        if what != "meaningless":
            expected[guest.uuid] = (GONE if what == "leaving" else kind, cpu)
    chance.shuffle(events)
    with cloud.daemon(HOST) as daemon:
        for event in events:
            publisher.publish(*event)
        cloud.settle(daemon)
        leaving = [guest for guest in guests if expected[guest.uuid][0] == GONE]
        # As long as they run they are kept, whatever Nova reports.
        with ThreadPoolExecutor(GUESTS) as pool:
            list(pool.map(destroy, [guest.domain for guest in leaving]))
        for guest in guests:
            kind, cpu = expected[guest.uuid]
            try:
                wait_until(lambda: is_so(daemon.record(guest.uuid), kind), 30, kind)  # noqa: B023
                check_threads(daemon.record(guest.uuid), guest, kind, cpu, guest in staying)
            except (TimeoutError, AssertionError) as error:
                error.add_note(f"seed {SEED}, {guest.uuid}: {daemon.record(guest.uuid)}")
                raise
        assert " ERROR " not in daemon.log()
        assert "Traceback" not in daemon.log()
    # Where init is slow to see that a QEMU has ended, each takes a second or two.
    with ThreadPoolExecutor(GUESTS) as pool:
        list(pool.map(destroy, [guest.domain for guest in guests]))


def is_so(record, kind):
    if kind in (GONE, NOTHING):
        return record is None
    return record and (record.reason or record.status) == kind


def check_threads(record, guest, kind, cpu, stayed):
    if kind == APPLIED:
        assert guest.affinity() == {0: {cpu}}
    elif stayed:
        # A refusal leaves in force what was accepted before.
        pins = record and record.accepted and record.accepted.to_json()["vcpu_pinning"]
        expected = {0: threads.cpu_list(str(pins))} if pins else everywhere(guest)
        assert guest.affinity() == expected
