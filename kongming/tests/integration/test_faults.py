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

"""Killed, or refused by libvirt, at every point that could leave something half done.

After each the guest and the store agree, and removal restores exactly what
the guest had before it was first touched.
"""

from contextlib import contextmanager
import pkgutil
import uuid

import pytest

from kongming.tests.integration.conftest import Cloud, Guest, applied, status
from kongming.tests.testbed import threads
from kongming.tests.testbed.faulty import Fault, FaultyDaemon
from kongming.tests.testbed.process import wait_until
from kongming.tests.thorough import stories

pytestmark = pytest.mark.needs_mounts

STORE = "kongming.executor.store.store:"
GUEST = "kongming.hypervisor.guest:Guest."
ACKNOWLEDGE = "oslo_messaging._drivers.amqpdriver:NotificationAMQPIncomingMessage.acknowledge"
RECONCILE = "kongming.executor.reconciler:Reconciler.reconcile"
#: Two vCPUs, emulator, shares, quota.
CHANGES = 5


def around(name, call=1):
    return [Fault(name, call), Fault(name, call, after=True)]


COMMON = [
    Fault("kongming.notification.handler:Handler.handle"),
    *around("kongming.executor.store.precedence:update_desired"),
    *around("kongming.executor.store.history:add"),
    Fault(STORE + "Store.request", after=True),
    *around(ACKNOWLEDGE),
    *around(RECONCILE),
    *around(GUEST + "write_baseline"),
    # Between two of them there is nothing: after one is before the next.
    *(Fault(GUEST + "set", number + 1, after=True) for number in range(CHANGES)),
]
#: Where it is killed while it applies a request.
THERE = [*COMMON, *around(GUEST + "observe", 2), *around(STORE + "Store.report")]
#: And while it releases it.
BACK = [*COMMON, *around(GUEST + "observe", 2), *around(STORE + "Store.forget")]


def test_all_faults_are_at_functions_that_exist():
    for fault in {*THERE, *BACK}:
        assert callable(pkgutil.resolve_name(fault.name))


def snapshot(guest):
    """All that the faults could have left changed, by the kernel and by libvirt."""
    return {
        "vcpus": guest.affinity(),
        "emulator": threads.affinity(threads.emulator_thread(guest.uuid)),
        "quotas": threads.vcpu_quotas(guest.uuid),
        "shares": guest.domain.schedulerParametersFlags(1)["cpu_shares"],
        "pins": guest.domain.vcpuPinInfo(),
        "baseline": "baseline" in guest.domain.XMLDesc(),
    }


@pytest.fixture(scope="module")
def shared(broker, libvirtd, tmp_path_factory):
    cloud = Cloud(broker, libvirtd, tmp_path_factory.mktemp("faults"))
    yield cloud
    _clean.clear()
    cloud.close()


#: The guest of the case before, if that has passed.
_clean: list[Guest] = []


@contextmanager
def faulty(cloud, *faults):
    """A host with a guest that nothing was ever done to, and its service."""
    # Another one only if something was left on it: ending one takes seconds.
    if not _clean:
        _clean.append(cloud.guest(vcpus=2))
    guest = _clean.pop()
    plain = cloud.daemon(host=f"host-{uuid.uuid4().hex[:8]}")
    daemon = FaultyDaemon(
        plain.conf.parent,
        transport_url=cloud.broker.transport_url(),
        connection_uri=cloud.libvirtd.uri,
        host=plain.host,
        options=f"[notification_handler]\nexchange = {cloud.exchange}\n"
        f"pool = {cloud.exchange}.$host\n[executor]\nretry_interval_max = 1\n",
    )
    try:
        daemon.start_with(*faults)
        yield guest, daemon
        _clean.append(guest)
    finally:
        daemon.kill()


def request_all(cloud, daemon, guest, cpus):
    cloud.update(
        guest,
        host=daemon.host,
        vcpu_pinning=f"0:{cpus[0]};1:{cpus[-1]}",
        emulator_pinning=str(cpus[-1]),
        cpu_shares="200",
        vcpu_quota="50%",
    )


def check_has_all(guest, cpus):
    now = snapshot(guest)
    assert now["vcpus"] == {0: {cpus[0]}, 1: {cpus[-1]}}
    assert now["emulator"] == {cpus[-1]}
    assert now["quotas"] == dict.fromkeys((0, 1), (50_000, 100_000))
    assert now["shares"] == 200
    assert now["baseline"]


def wait_killed(daemon):
    wait_until(lambda: not daemon.process.running, 30, f"it was killed:\n{daemon.log()}")
    assert daemon.process.terminate() == -9


@stories(
    ("there", "back"),
    list(zip(THERE, BACK, strict=True))[::-1],
    usual=5,
    ids=lambda fault: str(fault),
)
def test_a_service_killed_during_placement_and_release_completes_both(shared, cpus, there, back):
    with faulty(shared, there) as (guest, daemon):
        before = snapshot(guest)
        daemon.arm()
        request_all(shared, daemon, guest, cpus)
        wait_killed(daemon)
        daemon.start_with(back)
        applied(daemon, guest)
        check_has_all(guest, cpus)
        daemon.arm()
        shared.update(guest, host=daemon.host)
        wait_killed(daemon)
        daemon.start_with()
        wait_until(lambda: daemon.record(guest.uuid) is None, 30, "nothing is kept")
        assert snapshot(guest) == before
        assert "Traceback" not in daemon.log()


DOMAIN = "libvirt:virDomain."
ERROR = (38, "injected")
#: For each step the call of libvirt that fails.
STEPS = [
    Fault(DOMAIN + "setMetadata", 1, error=ERROR),
    Fault(DOMAIN + "pinVcpu", 1, error=ERROR),
    Fault(DOMAIN + "pinVcpu", 2, error=ERROR),
    Fault(DOMAIN + "pinEmulator", 1, error=ERROR),
    Fault(DOMAIN + "setSchedulerParametersFlags", 1, error=ERROR),
    Fault(DOMAIN + "setSchedulerParametersFlags", 2, error=ERROR),
    # Done, and then reported as failed.
    Fault(DOMAIN + "pinVcpu", 2, after=True, error=ERROR),
    Fault(DOMAIN + "setSchedulerParametersFlags", 2, after=True, error=ERROR),
    # Seeing that it had its effect.
    Fault(DOMAIN + "schedulerParametersFlags", 2, error=ERROR),
]
#: The second attempt waits until the test has looked.
HOLD = Fault(RECONCILE, 2, wait=True)


def back_to(shared, daemon, guest, before):
    shared.update(guest, host=daemon.host)
    wait_until(lambda: daemon.record(guest.uuid) is None, 30, "nothing is kept")
    assert snapshot(guest) == before


@stories("step", STEPS, ids=lambda fault: str(fault), usual=3)
def test_a_libvirt_error_at_a_step_is_undone_logged_and_retried(shared, cpus, step):
    with faulty(shared, step, HOLD) as (guest, daemon):
        before = snapshot(guest)
        daemon.arm()
        request_all(shared, daemon, guest, cpus)
        record = status(daemon, guest, "failed")
        assert "libvirt error 38: injected; the guest is as it was before" in record.message
        assert snapshot(guest) == before
        assert daemon.log().count(" ERROR ") == 1
        daemon.disarm()
        applied(daemon, guest)
        check_has_all(guest, cpus)
        back_to(shared, daemon, guest, before)
        assert "Traceback" not in daemon.log()


@stories(
    "undo",
    [
        # The two vCPUs' pins are undone after the emulator's.
        Fault(DOMAIN + "pinVcpu", 3, error=ERROR),
        Fault(DOMAIN + "pinVcpu", 4, error=ERROR),
        Fault(DOMAIN + "pinEmulator", 2, error=ERROR),
        Fault("kongming.hypervisor.baseline_element:write", 2, error=ERROR),
    ],
    ids=lambda fault: str(fault),
)
def test_an_error_in_undoing_is_logged_and_the_baseline_is_kept(shared, cpus, undo):
    step = Fault(DOMAIN + "pinEmulator", 1, error=ERROR)
    with faulty(shared, step, undo, HOLD) as (guest, daemon):
        before = snapshot(guest)
        daemon.arm()
        request_all(shared, daemon, guest, cpus)
        assert "undone, except" in status(daemon, guest, "failed").message
        daemon.disarm()
        applied(daemon, guest)
        check_has_all(guest, cpus)
        back_to(shared, daemon, guest, before)
