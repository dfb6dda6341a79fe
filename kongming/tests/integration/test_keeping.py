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

"""Placed, and kept placed: the whole vocabulary, drift, the guard, on real parts."""

from contextlib import nullcontext
import getpass
import time

import libvirt
import pytest

from kongming import exception
from kongming.allocation import metadata, target
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.request import Request, Source
from kongming.executor.placing import plan
from kongming.executor.placing.apply import carry_out
from kongming.executor.store.store import Store
from kongming.hypervisor.hypervisor import Hypervisor
from kongming.tests.integration.conftest import applied, everywhere, status
from kongming.tests.testbed import threads
from kongming.tests.testbed.guest import destroy
from kongming.tests.testbed.process import wait_until
from kongming.tests.thorough import stories


def parameter(guest, name):
    return guest.domain.schedulerParametersFlags(1)[name]


@pytest.mark.needs_mounts
def test_all_possible_values_are_applied_at_once_and_released(cloud, cpus):
    first, last = cpus[0], cpus[-1]
    guest = cloud.guest(vcpus=2, iothreads=1)
    shares = parameter(guest, "cpu_shares")
    emulator = threads.emulator_thread(guest.uuid)
    (iothread,) = threads.iothreads(guest.uuid).values()
    with cloud.daemon() as daemon:
        cloud.update(
            guest,
            vcpu_pinning=f"0:{first};1:{last}",
            emulator_pinning=str(last),
            iothread_pinning=f"1:{first}",
            cpu_shares="200",
            vcpu_quota="50%",
            numa_nodes="0",
        )
        assert applied(daemon, guest).reason == ""
        assert guest.affinity() == {0: {first}, 1: {last}}
        assert threads.affinity(emulator) == {last}
        assert threads.affinity(iothread) == {first}
        assert parameter(guest, "cpu_shares") == 200
        assert threads.vcpu_quotas(guest.uuid) == dict.fromkeys((0, 1), (50_000, 100_000))
        line = next(line for line in daemon.log().splitlines() if "(applied, observed" in line)
        assert "emulator pin" in line
        assert "vCPU quota none → 50000/100000 µs" in line

        cloud.update(guest, vcpu_quota="20000/40000")
        wait_until(lambda: guest.affinity() == everywhere(guest), 30, "unpinned again")
        applied(daemon, guest)
        assert threads.vcpu_quotas(guest.uuid) == dict.fromkeys((0, 1), (20_000, 40_000))
        assert threads.affinity(emulator) == threads.online_cpus()
        assert parameter(guest, "cpu_shares") == shares

        cloud.update(guest)
        wait_until(lambda: daemon.record(guest.uuid) is None, 30, "nothing is kept")
        assert threads.vcpu_quotas(guest.uuid) == dict.fromkeys((0, 1), (-1, 100_000))
        assert "baseline" not in guest.domain.XMLDesc()


@pytest.mark.needs_mounts
@pytest.mark.parametrize("requested_meanwhile", [True, False])
def test_a_suspended_guest_is_saved_without_its_placement(
    cloud, cpus, tmp_path, requested_meanwhile
):
    guest = cloud.guest(vcpus=2, firmware=tmp_path / "firmware")
    guest.domain.connect().defineXML(guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    shares = parameter(guest, "cpu_shares")
    pins = {"vcpu_pinning": str(cpus[-1]), "emulator_pinning": str(cpus[-1])}
    with cloud.daemon() as daemon:
        cloud.update(guest, **pins, cpu_shares="200", vcpu_quota="50%", numa_nodes="0")
        applied(daemon, guest)
        guest.domain.managedSave()
        daemon.wait_log(f"Instance {guest.uuid}: suspended; its placement was removed")
        saved = guest.domain.managedSaveGetXMLDesc()
        for element in ("pin", "numatune", "quota", "baseline"):
            assert element not in saved
        assert f"<shares>{shares}</shares>" in saved
        if not requested_meanwhile:
            cloud.update(guest)
            cloud.settle(daemon)
        guest.domain.create()
        if requested_meanwhile:
            guest.wait_on(cpus[-1])
            applied(daemon, guest)
            assert parameter(guest, "cpu_shares") == 200
        else:
            wait_until(lambda: daemon.record(guest.uuid) is None, 30, "nothing is kept")
            assert guest.affinity() == everywhere(guest)
            assert parameter(guest, "cpu_shares") == shares
        assert "Traceback" not in daemon.log()
    guest.domain.undefine()


@pytest.mark.needs_mounts
def test_no_limit_can_be_requested(cloud):
    guest = cloud.guest(vcpus=1)
    guest.domain.setSchedulerParametersFlags({"vcpu_quota": 5_000, "vcpu_period": 10_000}, 1)
    with cloud.daemon() as daemon:
        cloud.update(guest, vcpu_quota="none")
        applied(daemon, guest)
        assert threads.vcpu_quotas(guest.uuid) == {0: (-1, 100_000)}
        cloud.update(guest)
        wait_until(lambda: daemon.record(guest.uuid) is None, 30, "nothing is kept")
        assert threads.vcpu_quotas(guest.uuid) == {0: (5_000, 10_000)}


@pytest.mark.needs_mounts
def test_one_part_that_fails_undoes_all_parts(cloud, cpus):
    guest = cloud.guest(single_threaded=True)
    shares = parameter(guest, "cpu_shares")
    emulator = threads.emulator_thread(guest.uuid)
    with cloud.daemon() as daemon:
        cloud.update(guest, emulator_pinning=str(cpus[-1]), cpu_shares="200", vcpu_quota="50%")
        record = status(daemon, guest, "refused")
        assert record.reason == "quota_unsupported"
        assert record.message.endswith("the guest is as it was before")
        assert threads.affinity(emulator) == threads.online_cpus()
        assert parameter(guest, "cpu_shares") == shares
        assert "baseline" not in guest.domain.XMLDesc()


@stories(
    ("values", "reason"),
    [
        ({"cpu_shares": "1"}, "shares_out_of_range"),
        ({"cpu_shares": "0"}, "request_invalid"),
        ({"vcpu_quota": "0.5%"}, "request_invalid"),
        ({"numa_nodes": "77"}, "node_unknown"),
        ({"iothread_pinning": "9:0"}, "iothread_unknown"),
        ({"emulator_pinning": "8191"}, "cpu_unknown"),
    ],
    usual=2,
)
def test_targets_that_the_host_or_the_guest_lacks_are_refused(cloud, values, reason):
    guest = cloud.guest()
    with cloud.daemon() as daemon:
        cloud.update(guest, vcpu_pinning="0", **values)
        assert status(daemon, guest, "refused").reason == reason
        assert guest.affinity() == everywhere(guest)


@pytest.mark.needs_mounts
@stories("mode", ["strict", "preferred", "interleave"])
def test_memory_that_was_bound_for_good_is_not_touched(cloud, mode):
    guest = cloud.guest(numatune=mode)
    with cloud.daemon() as daemon:
        cloud.update(guest, vcpu_pinning="0", numa_nodes="0")
        assert status(daemon, guest, "refused").reason == "memory_fixed"
        assert guest.affinity() == everywhere(guest)


@pytest.mark.needs_mounts
def test_a_foreign_pin_is_corrected_at_once_and_logged(cloud, cpus):
    guest = cloud.guest()
    # No periodic check: only libvirt's event shows it.
    with cloud.daemon(options="[executor]\ncheck_interval = 0\n") as daemon:
        cloud.update(guest, vcpu_pinning=str(cpus[-1]), cpu_shares="200")
        applied(daemon, guest)
        guest.pin(cpus[0], vcpu=1)
        daemon.wait_log("drift (repinned)")
        guest.wait_on(cpus[-1])
        guest.domain.setSchedulerParametersFlags({"cpu_shares": 300}, 1)
        daemon.wait_log("drift (repinned)", times=2)
        wait_until(lambda: parameter(guest, "cpu_shares") == 200, 30, "the shares are corrected")
        pins = f"vCPU pins 1: found {cpus[0]}, desired {cpus[-1]}"
        assert f"Instance {guest.uuid}: drift (repinned): {pins}; corrected" in daemon.log()
        record = applied(daemon, guest)
        assert record.drift == "CPU shares found 300, desired 200"
        assert record.drift_at is not None


@pytest.mark.needs_mounts
def test_changes_by_kongming_are_not_taken_for_drift(cloud, cpus):
    guest = cloud.guest(vcpus=4, iothreads=1)
    with cloud.daemon(options="[DEFAULT]\ndebug = true\n") as daemon:
        for cpu in (cpus[0], cpus[-1]):
            cloud.update(
                guest,
                vcpu_pinning=str(cpu),
                iothread_pinning=str(cpu),
                emulator_pinning=str(cpu),
                cpu_shares=str(200 + cpu),
                vcpu_quota=f"{50 + cpu}%",
            )
            guest.wait_on(cpu)
            applied(daemon, guest)
        cloud.update(guest)
        wait_until(lambda: daemon.record(guest.uuid) is None, 30, "nothing is kept")
        cloud.settle(daemon)
        assert "changed by others" not in daemon.log()


@pytest.mark.needs_mounts
def test_a_thread_that_was_moved_behind_libvirts_back_is_found_by_the_check(cloud, cpus):
    guest = cloud.guest()
    with cloud.daemon(options="[executor]\ncheck_interval = 1\n") as daemon:
        # Where a cgroup confines a thread to less, nobody else can move it.
        cloud.update(guest, vcpu_pinning=",".join(map(str, cpus)), emulator_pinning="0-1")
        applied(daemon, guest)
        threads.set_affinity(threads.vcpu_threads(guest.uuid)[1], [cpus[0]])
        threads.set_affinity(threads.emulator_thread(guest.uuid), [cpus[0]])
        guest.wait_affinity(everywhere(guest))
        emulator = threads.emulator_thread(guest.uuid)
        wait_until(lambda: threads.affinity(emulator) == set(cpus), 30, "QEMU is back")
        daemon.wait_log("drift (repinned)")
        assert f"found {cpus[0]}, desired {cpus[0]}-{cpus[-1]}" in daemon.log()


def test_corrections_stop_after_repeated_drift(cloud, cpus):
    guest = cloud.guest(vcpus=1)
    with cloud.daemon() as daemon:
        cloud.update(guest, vcpu_pinning=str(cpus[-1]))
        applied(daemon, guest)
        for number in range(1, 6):
            guest.pin(cpus[0])
            wait_until(
                lambda: daemon.log().count("drift (repinned)") == number,  # noqa: B023
                30,
                f"correction {number}",
            )
        daemon.wait_log("not corrected for the next 60 s")
        guest.pin(cpus[0])
        cloud.settle(daemon)
        assert guest.affinity() == {0: {cpus[0]}}
        assert daemon.log().count("drift (repinned)") == 5


def test_a_guest_that_stops_is_absent_and_placed_when_it_starts(cloud, cpus):
    guest = cloud.guest()
    with cloud.daemon(options="[executor]\ncheck_interval = 0\n") as daemon:
        cloud.update(guest, vcpu_pinning=str(cpus[-1]))
        applied(daemon, guest)
        guest.domain.destroy()
        status(daemon, guest, "absent")
        guest.start()
        applied(daemon, guest)
        guest.wait_on(cpus[-1])
        assert "drift" not in daemon.log()


def test_a_restart_of_the_service_is_no_drift_but_a_change_meanwhile_is(cloud, cpus):
    guest = cloud.guest()
    daemon = cloud.daemon()
    daemon.start()
    cloud.update(guest, vcpu_pinning=str(cpus[-1]))
    applied(daemon, guest)
    daemon.stop()
    daemon.start()
    daemon.wait_log("Checking all 1 instances", times=1)
    daemon.stop()
    assert "drift" not in daemon.log()
    guest.pin(cpus[0])
    daemon.start()
    daemon.wait_log("drift (repinned)")
    guest.wait_on(cpus[-1])


def test_a_request_of_the_operator_wins(cloud, cpus):
    guest = cloud.guest()
    with cloud.daemon() as daemon:
        cloud.update(guest, vcpu_pinning=str(cpus[0]))
        guest.wait_on(cpus[0])
        applied(daemon, guest)
        store = Store(daemon.state_path, create=False)
        by_hand = metadata.parse({metadata.VCPU_PINNING: str(cpus[-1])})
        request = Request(Source.OPERATOR, by_hand, getpass.getuser(), time.time())
        store.request(guest.uuid, request)
        guest.wait_on(cpus[-1])
        cloud.update(guest, vcpu_pinning=f"{cpus[0]},{cpus[-1]}")
        cloud.settle(daemon)
        guest.wait_on(cpus[-1])
        store.withdraw(guest.uuid, Source.OPERATOR, getpass.getuser())
        guest.wait_affinity(everywhere(guest))
        applied(daemon, guest)
        assert [change.requested_by for change in store.history(guest.uuid) if change.requested_at]


RULES = "[guard]\n"


@stories(
    ("rules", "reason", "message"),
    [
        ("reserved_cpus = {last}", "cpu_reserved", "[guard] reserved_cpus is {last}"),
        ("allowed_cpus = {first}", "cpu_not_allowed", "[guard] allowed_cpus is {first}"),
        ("allowed_projects = p1,p2", "project_not_allowed", "[guard] allowed_projects"),
        ("nova_config_file = {nova}", "cpu_dedicated", "cpu_dedicated_set is {last}"),
        ("overlap = refuse", "overlap", "CPU {last}: instance {other} ("),
    ],
)
def test_the_rules_of_the_operator_are_reloaded_on_sighup(
    cloud, cpus, tmp_path, rules, reason, message
):
    nova = tmp_path / "nova.conf"
    nova.write_text(f"[compute]\ncpu_dedicated_set = {cpus[-1]}\n")
    guest, other = cloud.guest(), cloud.guest()
    names = {"first": cpus[0], "last": cpus[-1], "nova": nova, "other": other.uuid}
    other.pin(cpus[-1])
    daemon = cloud.daemon(options=RULES + rules.format(**names))
    free = daemon.conf.read_text()
    free = free.replace(RULES + rules.format(**names), RULES)
    with daemon:
        cloud.update(guest, vcpu_pinning=str(cpus[-1]))
        record = status(daemon, guest, "refused")
        assert record.reason == reason
        assert message.format(**names) in record.message
        assert guest.affinity() == everywhere(guest)
        daemon.conf.write_text(free)
        daemon.reload()
        guest.wait_on(cpus[-1])
        applied(daemon, guest)


@pytest.mark.needs_mounts
def test_an_iothread_that_is_removed_lifts_no_other_placement(cloud, cpus):
    guest = cloud.guest(vcpus=1)
    guest.domain.addIOThread(7, 1)
    with cloud.daemon(options="[executor]\ncheck_interval = 1\n") as daemon:
        cloud.update(
            guest,
            vcpu_pinning=str(cpus[-1]),
            iothread_pinning=f"7:{cpus[-1]}",
            vcpu_quota="50%",
        )
        applied(daemon, guest)
        guest.domain.delIOThread(7, 1)
        record = status(daemon, guest, "refused")
        assert record.reason == "iothread_unknown"
        guest.pin(cpus[0])
        guest.wait_on(cpus[-1])
        assert daemon.log().count("refused (iothread_unknown)") == 1
        guest.domain.setSchedulerParametersFlags({"vcpu_quota": 90_000}, 1)
        guest.wait_on(cpus[-1])
        wait_until(lambda: threads.vcpu_quotas(guest.uuid) == {0: (50_000, 100_000)}, 30, "quota")
        assert "; the rest is in force" in daemon.log()
        guest.domain.addIOThread(7, 1)
        applied(daemon, guest)


@pytest.mark.needs_mounts
def test_a_rule_that_forbids_one_part_leaves_it_unchanged_and_keeps_the_others(cloud, cpus):
    guest = cloud.guest(vcpus=2)
    with cloud.daemon(options="[executor]\ncheck_interval = 1\n") as daemon:
        cloud.update(guest, vcpu_pinning=f"0:{cpus[0]};1:{cpus[-1]}", vcpu_quota="50%")
        applied(daemon, guest)
        daemon.conf.write_text(daemon.conf.read_text() + f"{RULES}reserved_cpus = {cpus[-1]}\n")
        daemon.reload()
        assert status(daemon, guest, "refused").reason == "cpu_reserved"
        guest.pin(cpus[-1], vcpu=0)
        guest.wait_affinity({0: [cpus[0]], 1: [cpus[-1]]})
        assert threads.vcpu_quotas(guest.uuid)[1] == (50_000, 100_000)


def test_a_rule_that_is_added_later_is_logged_and_changes_no_guest(cloud, cpus):
    guest = cloud.guest()
    with cloud.daemon() as daemon:
        cloud.update(guest, vcpu_pinning=str(cpus[-1]))
        applied(daemon, guest)
        daemon.conf.write_text(daemon.conf.read_text() + f"{RULES}reserved_cpus = {cpus[-1]}\n")
        daemon.reload()
        assert status(daemon, guest, "refused").reason == "cpu_reserved"
        guest.wait_on(cpus[-1])
        daemon.conf.write_text(daemon.conf.read_text() + f"{RULES}allowed_cpus = x\n")
        daemon.reload()
        daemon.wait_log("[guard] allowed_cpus: item 'x'")
        assert daemon.process.running


def test_guests_on_the_same_cpu_are_named_in_a_warning(cloud, cpus):
    guest, other = cloud.guest(), cloud.guest(nova=False)
    other.pin(cpus[-1])
    with cloud.daemon() as daemon:
        cloud.update(guest, vcpu_pinning=str(cpus[-1]))
        record = applied(daemon, guest)
        assert f"instance {other.uuid} ({other.domain.name()})" in record.message
        guest.wait_on(cpus[-1])


def test_one_of_two_guests_that_request_the_same_cpu_at_once_gets_it(cloud, cpus):
    guests = [cloud.guest(vcpus=1) for _ in range(4)]
    with cloud.daemon(options=f"{RULES}overlap = refuse\n[executor]\ncheck_interval = 1\n") as d:
        for guest in guests:
            cloud.update(guest, vcpu_pinning=str(cpus[-1]))
        cloud.settle(d)

        def statuses():
            records = [d.record(guest.uuid) for guest in guests]
            return sorted(record.status for record in records if record)

        wait_until(lambda: statuses() == ["applied"] + ["refused"] * 3, 30, "one is applied")
        (winner,) = [guest for guest in guests if d.record(guest.uuid).status == "applied"]
        cloud.update(winner)
        wait_until(lambda: d.record(winner.uuid) is None, 30, "the CPU is free again")
        wait_until(lambda: statuses() == ["applied"] + ["refused"] * 2, 30, "the next one has it")


class StartAnew:
    """A step in which somebody ends the guest and starts it, as a hard reboot does."""

    def __init__(self, guest):
        self._guest = guest

    def apply(self, _guest):
        destroy(self._guest.domain)
        self._guest.start()


def test_a_guest_that_restarts_during_its_placement_is_released_from_all_of_it(cloud, cpus):
    guest = cloud.guest(vcpus=2)
    connection = libvirt.open(cloud.libvirtd.uri)
    hypervisor = Hypervisor(cloud.libvirtd.uri, lambda: nullcontext(connection))
    first, last = (
        plan.Change(target.vcpu(n), CpuSet(threads.online_cpus()), CpuSet([cpus[n]]))
        for n in (0, 1)
    )
    had = {target.vcpu(0): first.former, target.vcpu(1): last.former}
    goals = {target.vcpu(0): first.desired, target.vcpu(1): last.desired}
    steps = (plan.KeepBaseline({}, had), first, StartAnew(guest), last)
    with hypervisor.guest(guest.uuid) as found, pytest.raises(exception.GuestBusy):
        carry_out(plan.Plan(goals, {}, steps, had), found)
    with hypervisor.guest(guest.uuid) as found:
        assert found.definition().baseline == had
    connection.close()
    with cloud.daemon() as daemon:
        cloud.publish(guest, f"{cpus[0]}")
        guest.wait_on(cpus[0])
        applied(daemon, guest)
        cloud.publish(guest, None)
        guest.wait_affinity(everywhere(guest))
