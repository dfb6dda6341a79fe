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

"""The store's disk is full, its file damaged: logged once, and nothing is lost or half written."""

from contextlib import contextmanager
import sqlite3
import uuid

import pytest

from kongming.executor.store.store import FILE_NAME, Store
from kongming.tests.integration.conftest import KEY, applied, status
from kongming.tests.testbed.disk import fill, small_disk
from kongming.tests.testbed.process import find_program, wait_until

GARBAGE = b"garbage " * 100_000


def check_logged_once(daemon):
    assert daemon.process.running
    assert daemon.log().count(" ERROR ") == 1
    assert "Traceback" not in daemon.log()


def check_nothing_is_half_written(daemon):
    store = Store(daemon.state_path, create=False)
    for record in store.records():
        assert store.requests(record.instance_uuid)
        assert store.history(record.instance_uuid)
    assert store.instances() == {record.instance_uuid for record in store.records()}
    store.close()


def is_all_acknowledged(cloud, daemon):
    queue = cloud.broker.queues()[f"{cloud.exchange}.{daemon.host}"]
    return (queue.ready, queue.unacked) == (0, 0)


def check_all_acknowledged(cloud, daemon):
    wait_until(lambda: is_all_acknowledged(cloud, daemon), 30, "all events were acknowledged")


@pytest.mark.needs_mounts
def test_the_disk_is_full(cloud, cpus):
    first, last = cpus[0], cpus[-1]
    guest, other = cloud.guest(vcpus=1), cloud.guest(vcpus=1)
    daemon = cloud.daemon()
    with small_disk(daemon.state_path):
        daemon.start()
        cloud.publish(guest, str(first))
        applied(daemon, guest)
        fill(daemon.state_path / "filler")
        late = [str(uuid.uuid4()) for _ in range(10)]
        for instance in late:
            cloud.nova.publish(instance, daemon.host, {KEY: "0"})
        cloud.publish(guest, str(last), event_type="instance.update")
        cloud.publish(other, str(last))
        daemon.wait_log("Events wait in their queue: ")
        # The former request stays in force, also against others.
        guest.pin(last)
        daemon.wait_log("drift (repinned)")
        guest.wait_on(first)
        check_logged_once(daemon)
        check_nothing_is_half_written(daemon)
        (daemon.state_path / "filler").unlink()
        guest.wait_on(last)
        other.wait_on(last)
        applied(daemon, guest)
        applied(daemon, other)
        for instance in late:
            assert daemon.record(instance)
        daemon.wait_log("can be used again")
        check_logged_once(daemon)
        check_nothing_is_half_written(daemon)
        check_all_acknowledged(cloud, daemon)
        assert daemon.stop() == 0
        daemon.forget_store()


@contextmanager
def placed(cloud, guest, cpu):
    """A service that has placed a guest, and the file of its store, closed here."""
    with cloud.daemon() as daemon:
        cloud.publish(guest, str(cpu))
        applied(daemon, guest)
        daemon.forget_store()
        yield daemon, daemon.state_path / FILE_NAME


def test_the_file_is_replaced_by_garbage_and_moved_away(cloud, cpus):
    first, last = cpus[0], cpus[-1]
    guest, other = cloud.guest(vcpus=1), cloud.guest(vcpus=1)
    with placed(cloud, guest, first) as (daemon, file):
        damaged = file.with_name("damaged")
        damaged.write_bytes(GARBAGE)
        # Else SQLite would repair the file from the write-ahead log.
        with sqlite3.connect(file) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        damaged.rename(file)
        cloud.publish(other, str(last))
        daemon.wait_log("Events wait in their queue: ")
        assert "move it away" in daemon.log()
        assert guest.affinity() == {0: {first}}
        check_logged_once(daemon)
        file.rename(damaged)
        other.wait_on(last)
        applied(daemon, other)
        assert guest.affinity() == {0: {first}}
        check_logged_once(daemon)
        check_nothing_is_half_written(daemon)
        # Its next event brings its request back.
        cloud.publish(guest, str(last), event_type="instance.update")
        applied(daemon, guest)
        guest.wait_on(last)
        cloud.publish(guest, None, event_type="instance.update")
        wait_until(lambda: daemon.record(guest.uuid) is None, 30, "nothing is kept")
        check_all_acknowledged(cloud, daemon)


def test_the_file_is_overwritten_in_place_and_moved_away(cloud, cpus):
    first, last = cpus[0], cpus[-1]
    guest, other = cloud.guest(vcpus=1), cloud.guest(vcpus=1)
    with placed(cloud, guest, first) as (daemon, file):
        for damaged in (file, file.with_name(f"{FILE_NAME}-wal")):
            with damaged.open("r+b") as opened:
                opened.write(GARBAGE)
        # SQLite may have all it needs in its memory, and notice nothing.
        cloud.nova.publish(str(uuid.uuid4()), daemon.host, {KEY: "0"})
        wait_until(
            lambda: " ERROR " in daemon.log() or is_all_acknowledged(cloud, daemon),
            30,
            "the event was kept, or waits",
        )
        # What it has kept there is lost with it.
        file.rename(file.with_name("damaged"))
        cloud.publish(other, str(last))
        other.wait_on(last)
        applied(daemon, other)
        assert guest.affinity() == {0: {first}}
        assert daemon.log().count(" ERROR ") <= 1
        assert "Traceback" not in daemon.log()
        check_nothing_is_half_written(daemon)
        check_all_acknowledged(cloud, daemon)


def check_refuses_to_start(daemon, message):
    before = len(daemon.log())
    daemon.process.start()
    wait_until(lambda: not daemon.process.running, 30, "it ended")
    assert daemon.process.terminate() == 1
    (line,) = daemon.log()[before:].splitlines()
    assert " CRITICAL " in line
    assert message in line


def test_a_file_that_is_damaged_at_the_start_is_one_clear_line(cloud, cpus):
    guest = cloud.guest(vcpus=1)
    daemon = cloud.daemon()
    daemon.start()
    cloud.publish(guest, str(cpus[-1]))
    applied(daemon, guest)
    assert daemon.stop() == 0
    daemon.forget_store()
    file = daemon.state_path / FILE_NAME
    file.write_bytes(GARBAGE)
    check_refuses_to_start(daemon, "move it away")
    assert guest.affinity() == {0: {cpus[-1]}}
    assert file.read_bytes() == GARBAGE
    file.rename(file.with_name("damaged"))
    daemon.start()
    cloud.publish(guest, "8191", event_type="instance.update")
    assert status(daemon, guest, "refused").reason == "cpu_unknown"
    assert guest.affinity() == {0: {cpus[-1]}}


@pytest.mark.needs_mounts
def test_a_file_that_was_made_read_only(cloud, cpus):
    first, last = cpus[0], cpus[-1]
    guest = cloud.guest(vcpus=1)
    daemon = cloud.daemon()
    # Else root may write to whatever there is.
    drop = ("--bounding-set=-dac_override", "--inh-caps=-dac_override")
    daemon.process.command = [
        find_program("setpriv", "util-linux"),
        *drop,
        *daemon.process.command,
    ]
    daemon.start()
    cloud.publish(guest, str(first))
    applied(daemon, guest)
    file = daemon.state_path / FILE_NAME
    file.chmod(0o444)
    # What is open stays open for writing.
    cloud.publish(guest, str(last), event_type="instance.update")
    guest.wait_on(last)
    applied(daemon, guest)
    assert " ERROR " not in daemon.log()
    assert daemon.stop() == 0
    daemon.forget_store()
    check_refuses_to_start(daemon, "readonly")
    assert guest.affinity() == {0: {last}}
    # SQLite gives what it makes beside it the same permissions.
    for one in daemon.state_path.glob(f"{FILE_NAME}*"):
        one.chmod(0o644)
    daemon.start()
    cloud.publish(guest, str(first), event_type="instance.update")
    guest.wait_on(first)
