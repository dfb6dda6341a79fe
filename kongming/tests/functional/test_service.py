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

"""The whole service in one process: fake:// messaging, libvirt's test driver.

The test driver has 8 CPUs, of which 0, 2 and 4 are online.
"""

import contextlib
import logging
import sqlite3

import libvirt
import pytest

from kongming import exception
from kongming.executor.reconciler import Reconciler, Result
from kongming.hypervisor.connection import run_event_loop
from kongming.notification.service import NotificationHandlerService
from kongming.tests import captures
from kongming.tests.functional.cloud import EVERYWHERE, URI, Cloud, pins, wait_for

GIVEN = "".join(f"<vcpupin vcpu='{number}' cpuset='0,4'/>" for number in range(4))
NUMA = (
    f"<cputune>{GIVEN}</cputune>"
    "<cpu><numa><cell id='0' cpus='0-3' memory='1024' unit='KiB'/></numa></cpu>"
)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    run_event_loop()
    cloud = Cloud(tmp_path_factory.mktemp("cloud"), libvirt.open(URI))
    yield cloud.start()
    cloud.stop()


@pytest.fixture
def cloud(running, caplog):
    caplog.set_level(logging.INFO)
    yield running
    for domain in running.domains:
        with contextlib.suppress(libvirt.libvirtError):
            domain.destroy()
    running.domains.clear()


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_created_guest_is_pinned_and_reported(cloud, caplog):
    guest = cloud.guest()
    cloud.publish(guest, kongming_vcpu_pinning="0,2-4,^3")
    wait_for(lambda: pins(guest) == [{0, 2, 4}] * 4)
    cloud.settled()
    assert cloud.record(guest).status == "applied"
    line = f"Instance {guest.UUIDString()}: vCPU pins 0-3: 0-7 → 0,2,4 (applied, libvirt confirmed"
    assert line in caplog.text
    assert not warnings(caplog)


def test_a_map_leaves_other_vcpus_as_they_are(cloud):
    guest = cloud.guest()
    cloud.publish(guest, kongming_vcpu_pinning="0:2;2-3:4")
    wait_for(lambda: pins(guest) == [{2}, EVERYWHERE, {4}, {4}])


def test_the_placement_of_a_guest_does_not_depend_on_former_requests(cloud):
    guest = cloud.guest()
    cloud.publish(guest, kongming_vcpu_pinning="0:2;1:4")
    wait_for(lambda: pins(guest) == [{2}, {4}, EVERYWHERE, EVERYWHERE])
    guest.pinVcpu(3, (True, False, True, False, False, False, False, False))
    cloud.publish(guest, "instance.update", kongming_vcpu_pinning="1-2:0")
    wait_for(lambda: pins(guest) == [EVERYWHERE, {0}, {0}, {0, 2}])


def test_a_key_removed_while_the_guest_is_saved_is_removed_when_it_comes_back(cloud):
    guest = cloud.guest()
    cloud.publish(guest, kongming_vcpu_pinning="2")
    wait_for(lambda: pins(guest) == [{2}] * 4)
    saved = guest.XMLDesc()
    guest.destroy()
    cloud.publish(guest, "instance.update")
    cloud.settled()
    back = cloud.connection.createXML(saved, 0)
    cloud.domains.append(back)
    wait_for(lambda: pins(back) == [EVERYWHERE] * 4)
    cloud.settled()
    assert "baseline" not in back.XMLDesc()
    assert cloud.record(guest) is None


def test_an_edit_moves_and_removal_returns_to_the_baseline(cloud, caplog):
    guest = cloud.guest(more="<cputune><vcpupin vcpu='1' cpuset='4'/></cputune>")
    baseline = [EVERYWHERE, {4}, EVERYWHERE, EVERYWHERE]
    assert pins(guest) == baseline
    for value in "024":
        cloud.publish(guest, "instance.update", kongming_vcpu_pinning=value)
        wait_for(lambda value=value: pins(guest) == [{int(value)}] * 4)
    cloud.publish(guest, "instance.update", other="x")
    wait_for(lambda: pins(guest) == baseline)
    cloud.settled()
    assert cloud.record(guest) is None
    assert "baseline" not in guest.XMLDesc()
    assert "back to its baseline" in caplog.text


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("0,x", "request_invalid"),
        ("0,8", "cpu_unknown"),
        ("0-2", "cpu_offline"),
        ("0-7", "cpu_offline"),
        ("4:0", "vcpu_unknown"),
    ],
)
def test_a_refusal_is_logged_once_and_has_no_effect(cloud, caplog, value, reason):
    guest = cloud.guest()
    for _ in range(3):
        cloud.publish(guest, kongming_vcpu_pinning=value)
        cloud.settled()
    assert pins(guest) == [EVERYWHERE] * 4
    assert cloud.record(guest).reason == reason
    logged = warnings(caplog)
    assert len(logged) == 1
    assert f"refused ({reason})" in logged[0]


@pytest.mark.parametrize("bad", ["0,x", "0,8", "0-2"])
def test_a_refused_edit_leaves_the_last_accepted_in_force(cloud, bad):
    guest = cloud.guest()
    cloud.publish(guest, kongming_vcpu_pinning="2")
    wait_for(lambda: pins(guest) == [{2}] * 4)
    cloud.publish(guest, "instance.update", kongming_vcpu_pinning=bad)
    cloud.settled()
    assert cloud.record(guest).status == "refused"
    assert pins(guest) == [{2}] * 4
    guest.pinVcpu(1, (True,) * 8)
    cloud.publish(guest, "instance.update", kongming_vcpu_pinning=bad)
    wait_for(lambda: pins(guest) == [{2}] * 4)
    cloud.publish(guest, "instance.update", kongming_vcpu_pinning="4")
    wait_for(lambda: pins(guest) == [{4}] * 4)


@pytest.mark.parametrize("bad", ["0,x", "0,8"])
def test_an_interrupted_first_request_leaves_no_placement_behind_a_refusal(
    cloud, monkeypatch, bad
):
    def lose_the_connection(*_args):
        raise exception.HypervisorUnavailable("libvirt is unavailable")

    guest = cloud.guest()
    with monkeypatch.context() as patched:
        patched.setattr(Reconciler, "_report_placed", lose_the_connection)
        cloud.publish(guest, kongming_vcpu_pinning="0:2")
        wait_for(lambda: pins(guest)[0] == {2})
        cloud.settled()
        assert cloud.record(guest).status == "pending"
        # Still so: a retry that succeeds would make it an accepted request.
        cloud.publish(guest, "instance.update", kongming_vcpu_pinning=bad)
        cloud.settled()
    assert cloud.record(guest).status == "refused"
    assert pins(guest) == [EVERYWHERE] * 4


def test_a_withdrawn_request_does_not_return_with_a_refusal(cloud, monkeypatch):
    guest = cloud.guest()
    cloud.publish(guest, kongming_vcpu_pinning="0:2")
    wait_for(lambda: pins(guest)[0] == {2})
    cloud.settled()
    with monkeypatch.context() as patched:
        patched.setattr(Reconciler, "reconcile", lambda *_args: Result.DONE)
        cloud.publish(guest, "instance.update")
        cloud.settled()
    assert pins(guest)[0] == {2}
    cloud.publish(guest, "instance.update", kongming_vcpu_pinning="0,x")
    wait_for(lambda: pins(guest) == [EVERYWHERE] * 4)


def test_the_part_of_an_accepted_request_that_a_smaller_guest_has_stays_in_force(cloud, caplog):
    guest = cloud.guest()
    instance_uuid = guest.UUIDString()
    cloud.publish(guest, kongming_vcpu_pinning="0:2;3:4")
    wait_for(lambda: pins(guest) == [{2}, EVERYWHERE, EVERYWHERE, {4}])
    cloud.settled()
    guest.destroy()
    smaller = cloud.guest(vcpus=2, instance_uuid=instance_uuid)
    wait_for(lambda: pins(smaller) == [{2}, EVERYWHERE])
    wait_for(lambda: cloud.record(smaller).reason == "vcpu_unknown")
    smaller.pinVcpu(0, (True,) * 8)
    cloud.publish(smaller, "instance.update", kongming_vcpu_pinning="0:2;3:4")
    wait_for(lambda: pins(smaller) == [{2}, EVERYWHERE])
    cloud.settled()
    assert cloud.record(smaller).status == "refused"
    (warning,) = (each for each in warnings(caplog) if "vcpu_unknown" in each)
    assert "vCPU 3 does not exist: the guest has 2 vCPUs" in warning
    assert warning.endswith("; the rest is in force")
    smaller.destroy()
    again = cloud.guest(instance_uuid=instance_uuid)
    wait_for(lambda: pins(again) == [{2}, EVERYWHERE, EVERYWHERE, {4}])
    wait_for(lambda: cloud.record(again).status == "applied")


@pytest.mark.parametrize(
    ("parts", "reason"), [({"metadata": ""}, "not_nova"), ({"more": NUMA}, "outside_grant")]
)
def test_unmanaged_guests_are_refused(cloud, parts, reason):
    guest = cloud.guest(**parts)
    before = pins(guest)
    cloud.publish(guest, kongming_vcpu_pinning="2")
    cloud.settled()
    assert cloud.record(guest).reason == reason
    assert pins(guest) == before
    assert "baseline" not in guest.XMLDesc()
    cloud.publish(guest, "instance.update")
    cloud.settled()
    assert cloud.record(guest) is None


def test_guests_without_requests_leave_no_trace(cloud):
    guest = cloud.guest()
    cloud.publish(guest, other="x")
    cloud.settled()
    assert cloud.record(guest) is None


def test_guests_of_other_hosts_are_left_alone(cloud):
    guest = cloud.guest()
    cloud.publish(guest, host="elsewhere", kongming_vcpu_pinning="2")
    cloud.settled()
    assert cloud.record(guest) is None
    assert pins(guest) == [EVERYWHERE] * 4


def test_a_request_before_the_start_of_its_guest_is_applied_when_it_starts(cloud):
    guest = cloud.guest()
    xml = guest.XMLDesc()
    guest.destroy()
    cloud.publish(guest, kongming_vcpu_pinning="2")
    cloud.settled()
    assert cloud.record(guest).status == "absent"
    started = cloud.connection.createXML(xml, 0)
    cloud.domains.append(started)
    wait_for(lambda: pins(started) == [{2}] * 4)


def test_an_instance_that_leaves_is_released(cloud):
    for event, host in [
        ("instance.delete.end", ...),
        ("instance.shelve_offload.end", None),
        ("instance.live_migration_post.end", ...),
        ("instance.update", "elsewhere"),
    ]:
        guest = cloud.guest()
        cloud.publish(guest, kongming_vcpu_pinning="2")
        cloud.settled()
        assert cloud.record(guest).status == "applied"
        guest.destroy()
        cloud.publish(guest, event, host=host, kongming_vcpu_pinning="2")
        cloud.settled()
        assert cloud.record(guest) is None


@pytest.mark.parametrize("payload", [None, 5, "x", [], {}, {"nova_object.data": 7}])
def test_a_malformed_event_is_one_warning_and_the_next_is_handled(cloud, caplog, payload):
    guest = cloud.guest()
    cloud.send("instance.create.end", payload)
    cloud.publish(guest, kongming_vcpu_pinning="2")
    wait_for(lambda: pins(guest) == [{2}] * 4)
    logged = warnings(caplog)
    assert len(logged) == 1
    assert "Unreadable notification" in logged[0]


def test_desired_allocations_are_applied_after_a_restart(cloud):
    guest = cloud.guest()
    cloud.publish(guest, kongming_vcpu_pinning="2")
    wait_for(lambda: pins(guest) == [{2}] * 4)
    cloud.stop()
    guest.pinVcpu(0, (True,) * 8)
    cloud.start()
    wait_for(lambda: pins(guest) == [{2}] * 4)


@pytest.fixture
def unlock(cloud):
    """A store that somebody else has locked, until it is let go."""
    store = cloud.service._executor._store._db
    store._db.execute("PRAGMA busy_timeout = 20")
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield lambda: other.execute("ROLLBACK")
    store._db.execute("PRAGMA busy_timeout = 5000")


def test_events_wait_while_the_store_is_unusable(cloud, unlock, caplog):
    guest = cloud.guest()
    cloud.publish(guest, kongming_vcpu_pinning="2")
    wait_for(lambda: cloud.service._listener.held_up)
    assert pins(guest) == [EVERYWHERE] * 4
    unlock()
    wait_for(lambda: pins(guest) == [{2}] * 4)
    # Whoever notices first reports: the listener, or a worker that is about another guest.
    assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 1


def test_a_second_service_on_the_same_state_is_refused(cloud):
    with pytest.raises(Exception, match="another Kongming service uses"):
        NotificationHandlerService(cloud.conf)


def test_all_captured_notifications_are_handled_without_a_warning(cloud, caplog, monkeypatch):
    monkeypatch.setattr(cloud.service._handler, "_host", "compute-1")
    for step in captures.STEPS:
        for message in captures.messages(step):
            cloud.send(message["event_type"], message["payload"], message["publisher_id"])
    cloud.received_all()
    assert cloud.service._handler.counts["own"] > 80
    assert not warnings(caplog)
