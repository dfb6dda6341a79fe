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
"""A guest as libvirt presents it: which calls are made when, and what its errors mean."""

from contextlib import nullcontext
import os
import time

import libvirt
import pytest

from kongming import exception
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import (
    EMULATOR,
    MEMORY,
    NO_QUOTA,
    QUOTA,
    SHARES,
    Quota,
    iothread,
    vcpu,
)
from kongming.hypervisor.definition import BASELINE_URI, RELEASED_URI, baseline_xml
from kongming.hypervisor.errors import translated
from kongming.hypervisor.guest import Guest
from kongming.hypervisor.reading import Reading
from kongming.tests.kernel import Kernel
from kongming.tests.libvirt_errors import error
from kongming.tests.unit.domains import ALL, XML, Domain, guest_of


@pytest.mark.parametrize(
    ("control", "job", "raised"),
    [
        ([0, 0, 0], 0, None),
        ([libvirt.VIR_DOMAIN_CONTROL_OCCUPIED, 0, 5_000], 0, exception.GuestBusy),
        ([libvirt.VIR_DOMAIN_CONTROL_OCCUPIED, 0, 5_001], 0, exception.GuestHung),
        ([libvirt.VIR_DOMAIN_CONTROL_JOB, 0, 9_000], 0, exception.GuestBusy),
        ([libvirt.VIR_DOMAIN_CONTROL_ERROR, 0, 9_000], 0, None),
        ([0, 0, 0], libvirt.VIR_DOMAIN_JOB_UNBOUNDED, exception.GuestBusy),
        # On the host that a guest is migrated to, until the migration ends.
        ([0, 0, 0], error(libvirt.VIR_ERR_OPERATION_UNSUPPORTED), exception.GuestBusy),
        ([0, 0, 0], error(libvirt.VIR_ERR_INTERNAL_ERROR), exception.StepFailed),
        # Such a driver has neither.
        (error(libvirt.VIR_ERR_NO_SUPPORT), error(libvirt.VIR_ERR_NO_SUPPORT), None),
    ],
)
def test_a_guest_that_libvirt_does_not_permit_to_change_is_distinguished(control, job, raised):
    info = job if isinstance(job, Exception) else [job] * 12
    guest = guest_of(Domain(controlInfo=control, jobInfo=info))
    if raised is None:
        guest.check_free()
        return
    with pytest.raises(raised) as failure:
        guest.check_free()
    assert type(failure.value) is raised


@pytest.mark.parametrize(
    ("state", "reason", "busy", "starting"),
    [
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION, True, False),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP, False, True),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER, False, False),
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_PAUSED_MIGRATION, False, False),
    ],
)
def test_a_guest_that_waits_for_its_migration_is_left_alone(state, reason, busy, starting):
    guest = guest_of(Domain(state=[state, reason]))
    assert guest.is_starting() is starting
    with pytest.raises(exception.GuestBusy) if busy else nullcontext():
        guest.check_free()


class Writing(Domain):
    """A domain that notes the elements that are written into its metadata, by their URI."""

    def __init__(self, **answers):
        super().__init__(**answers)
        self.written = []

    def setMetadata(self, _kind, xml, _prefix, uri, _flags):  # noqa: N802
        self.written.append((uri, xml))


def test_a_released_baseline_stays_named_until_the_guest_ends():
    domain = Writing()
    guest = guest_of(domain)
    guest.write_baseline({vcpu(0): ALL, EMULATOR: ALL, SHARES: 1024})
    assert [uri for uri, _written in domain.written] == [BASELINE_URI]
    vcpu_pin, emulator_pin = '<vcpupin vcpu="0" cpuset="0-3" />', '<emulatorpin cpuset="0-3" />'
    guest.write_baseline({EMULATOR: ALL})
    assert domain.written[1] == (RELEASED_URI, f"<released>{vcpu_pin}</released>")
    guest.write_baseline({})
    assert domain.written[-2:] == [
        (RELEASED_URI, f"<released>{vcpu_pin}{emulator_pin}</released>"),
        (BASELINE_URI, None),
    ]
    guest.write_baseline({vcpu(0): ALL, EMULATOR: ALL})
    assert domain.written[-2] == (RELEASED_URI, None)


def test_a_formerly_released_value_stays_named():
    released = baseline_xml({vcpu(1): ALL, MEMORY: CpuSet([1])}, name="released")
    released = released.replace("<released", f"<released xmlns='{RELEASED_URI}'")
    domain = Writing(XMLDesc=XML.replace("<memory", f"<metadata>{released}</metadata><memory"))
    guest = guest_of(domain)
    guest.definition()
    guest.write_baseline({vcpu(0): ALL, vcpu(1): ALL})
    assert domain.written[0] == (RELEASED_URI, '<released><memory nodeset="1" /></released>')


def test_no_released_value_is_named_for_a_numa_guest_as_nova_rewrites_it():
    numa = "<cpu><numa><cell id='0' cpus='0-1' memory='4'/></numa></cpu></domain>"
    domain = Writing(XMLDesc=XML.replace("</domain>", numa))
    for baseline in ({vcpu(0): ALL}, {}):
        guest = guest_of(domain)
        guest.definition()
        guest.write_baseline(baseline)
    assert [uri for uri, _written in domain.written] == [BASELINE_URI] * 2


@pytest.mark.parametrize("query", [Guest.check_free, Guest.definition])
def test_a_hung_guest_is_not_queried_through_a_call_that_would_hang_too(query):
    domain = Domain(controlInfo=[libvirt.VIR_DOMAIN_CONTROL_OCCUPIED, 0, 60_000])
    with pytest.raises(
        exception.GuestHung, match=r"QEMU's monitor has not responded since \d{4}-"
    ):
        query(guest_of(domain))
    assert domain.calls[-1] == "controlInfo"


def test_a_definition_is_read_when_no_other_client_uses_the_monitor_any_more(monkeypatch):
    domain = Domain(controlInfo=[libvirt.VIR_DOMAIN_CONTROL_OCCUPIED, 0, 20])
    monkeypatch.setattr(time, "sleep", lambda _: domain.become(controlInfo=[0, 0, 0]))
    assert guest_of(domain).definition().memory_kib
    assert domain.calls[-3:] == ["controlInfo", "controlInfo", "XMLDesc"]


@pytest.mark.parametrize(
    ("raised", "means"),
    [
        (error(libvirt.VIR_ERR_NO_DOMAIN), exception.GuestAbsent),
        (error(libvirt.VIR_ERR_OPERATION_TIMEOUT), exception.GuestBusy),
        (error(libvirt.VIR_ERR_OPERATION_INVALID, "cpu affinity"), exception.PinningUnsupported),
        (error(libvirt.VIR_ERR_OPERATION_INVALID, "other"), exception.StepFailed),
        (
            error(libvirt.VIR_ERR_OPERATION_INVALID, "cgroup CPU controller is not mounted"),
            exception.Unsupported,
        ),
        (error(libvirt.VIR_ERR_OPERATION_UNSUPPORTED), exception.Unsupported),
        (error(libvirt.VIR_ERR_SYSTEM_ERROR), exception.StepFailed),
    ],
)
def test_each_libvirt_error_has_a_meaning(raised, means):
    guest = guest_of(Domain(pinVcpu=raised))
    with pytest.raises(exception.KongmingError) as failure:
        guest.set(vcpu(0), ALL)
    assert type(failure.value) is means


def test_an_error_on_a_dead_connection_means_that_libvirt_became_unavailable():
    domain = Domain(pinVcpu=error(libvirt.VIR_ERR_RPC))
    guest = guest_of(domain)
    domain.alive = False
    with pytest.raises(exception.HypervisorUnavailable):
        guest.set(vcpu(0), ALL)


def test_a_domain_that_stopped_is_absent():
    guest = guest_of(Domain(pinVcpu=error(libvirt.VIR_ERR_SYSTEM_ERROR), isActive=0))
    with pytest.raises(exception.GuestAbsent):
        guest.set(vcpu(0), ALL)
    with pytest.raises(exception.GuestAbsent):
        guest_of(Domain(ID=-1))


EVERYTHING = (vcpu(0), vcpu(1), vcpu(2), EMULATOR, iothread(1), iothread(2), SHARES, QUOTA, MEMORY)


def test_values_that_the_kernel_shows_are_not_requested_from_libvirt(tmp_path):
    kernel = Kernel(tmp_path, 2)
    kernel.quota(0, 20_000)
    kernel.quota(1, 20_000)
    domain = Domain()
    guest = guest_of(domain, kernel)
    read = guest.observe([each for each in EVERYTHING if each != SHARES])
    assert read.keys() == {vcpu(0), vcpu(1), EMULATOR, iothread(1), QUOTA, MEMORY}
    assert read[QUOTA] == Reading.of(Quota(20_000))
    assert domain.calls == ["UUIDString", "ID", "controlInfo", "XMLDesc"]


def test_values_that_the_kernel_does_not_show_are_read_from_libvirt():
    domain = Domain()
    guest = guest_of(domain)
    read = guest.observe(EVERYTHING, guest.definition())
    assert read == {
        vcpu(0): Reading.of(ALL),
        vcpu(1): Reading.of(CpuSet([1, 3])),
        EMULATOR: Reading.of(ALL, by_kernel=False),
        iothread(1): Reading.of(CpuSet([2]), by_kernel=False),
        SHARES: Reading.of(1024),
        QUOTA: Reading.of(NO_QUOTA, by_kernel=False),
        MEMORY: Reading.of(CpuSet([1]), by_kernel=False),
    }
    # That would enter QEMU's monitor.
    assert "ioThreadInfo" not in domain.calls


def test_a_cpu_time_that_libvirt_does_not_control_is_not_requested(tmp_path):
    domain = Domain()
    guest = guest_of(domain, Kernel(tmp_path, 2, controllers=("cpuset",)))
    assert guest.observe([SHARES, QUOTA]) == {}
    assert "schedulerParametersFlags" not in domain.calls
    assert (guest.has_cpu_controller, guest.has_cpuset_controller) == (False, True)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_quota_that_one_vcpu_did_not_accept_is_no_quota(tmp_path, lost):
    kernel = Kernel(tmp_path, 1)
    guest = guest_of(Domain(), kernel)
    for number in (0, 1):
        kernel.quota(number, 20_000)
    guest.set(QUOTA, Quota(20_000))
    kernel.quota(lost, -1)
    with pytest.raises(exception.QuotaUnsupported):
        guest.set(QUOTA, Quota(20_000))


def test_a_thread_that_the_emulator_pin_left_behind_is_moved(tmp_path, monkeypatch):
    kernel = Kernel(tmp_path, 2)
    kernel.thread(703, "IO mon_iothread", cpus="1")
    kernel.thread(701, "qemu-system-x86", cpus="2")
    moved = []

    def set_affinity(thread, cpus):
        moved.append((thread, CpuSet(cpus)))
        if thread == 701:
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.sched_setaffinity", set_affinity)
    # There the ids of threads are those of another namespace.
    (kernel.proc / "self").symlink_to(str(os.getpid() + 1))
    guest_of(Domain(), kernel).set(EMULATOR, ALL)
    assert moved == []
    (kernel.proc / "self").unlink()
    (kernel.proc / "self").symlink_to(str(os.getpid()))
    guest_of(Domain(), kernel).set(EMULATOR, ALL)
    assert moved == [(701, ALL), (703, ALL)]


def test_a_move_of_much_memory_may_take_long(tmp_path):
    patience = []

    class Noting(Domain):
        def setNumaParameters(self, *_):  # noqa: N802
            patience.extend(call.patience_s for call in guest._calls.older_than(-1.0))

    guest = guest_of(Noting())
    guest.definition()
    guest.set(MEMORY, CpuSet([1]))
    # 2 GiB at 16 MiB a second.
    assert patience == [60.0 + 128.0]
    assert guest._calls.older_than(-1.0) == []


@pytest.mark.parametrize(
    ("found", "restarted"),
    [(4, True), (3, False), (-1, False), (error(libvirt.VIR_ERR_NO_DOMAIN), False)],
)
def test_a_restarted_guest_has_another_id(found, restarted):
    now = found if isinstance(found, Exception) else Domain(ID=found)
    guest = guest_of(Domain(lookupByUUIDString=now))
    assert guest.has_restarted() is restarted
    assert guest.ends_within(0) is (found != 3)


@pytest.mark.parametrize(
    ("paused", "raised"),
    [
        (libvirt.VIR_DOMAIN_PAUSED_STARTING_UP, exception.GuestBusy),
        (libvirt.VIR_DOMAIN_PAUSED_USER, exception.PinningUnsupported),
        (error(libvirt.VIR_ERR_INTERNAL_ERROR), exception.PinningUnsupported),
    ],
)
def test_a_guest_is_refused_pins_only_once_libvirt_has_started_it(paused, raised):
    refusal = error(libvirt.VIR_ERR_OPERATION_INVALID, "cpu affinity is not supported")
    state = paused if isinstance(paused, Exception) else [libvirt.VIR_DOMAIN_PAUSED, paused]
    domain = Domain(state=state)
    assert type(translated(refusal, "setting vCPU 0 to 1", domain)) is raised
