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

"""A pass over an instance: from what is desired and what is observed to an outcome."""

from dataclasses import replace
from datetime import UTC, datetime
import itertools
from types import SimpleNamespace

import pytest

from kongming import exception
from kongming.allocation.allocation import Allocation, Windowed
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.statuses import Status
from kongming.allocation.target import EMULATOR, SHARES, vcpu
from kongming.allocation.windows import Window
from kongming.executor import reconciler, window_timer
from kongming.executor.departures import _GRACE_S
from kongming.executor.reconciler import Result
from kongming.executor.store.residence import Hint, Place
from kongming.host.rules import Overlap, Rules
from kongming.hypervisor.reading import Reading
from kongming.tests.guests import ALL, HALF, HOST, Guest, occupant, pin, request
from kongming.tests.unit.reconciling import ONE, UUID, Host

OTHER = "5a6e9b1e-0000-4000-8000-000000000002"
THERE = Hint(Place.ELSEWHERE, "compute-2", from_api=True)


@pytest.fixture
def host(tmp_path):
    host = Host(tmp_path)
    yield host
    host.store.close()


def lines(caplog, level):
    found = [each.getMessage() for each in caplog.records if each.levelname == level]
    caplog.clear()
    return found


class TestPlacing:
    def test_a_request_is_applied_once_and_logged(self, host, caplog):
        caplog.set_level("INFO")
        assert host.reconcile(ONE) is Result.DONE
        assert host.pins() == [CpuSet([1])] * 2
        assert (*host.outcome, host.record.accepted) == (Status.APPLIED, "", ONE)
        assert lines(caplog, "INFO") == [
            f"Instance {UUID}: vCPU pins 0-1: 0-7 → 1 (applied, observed on the threads)"
        ]
        assert host.threads.watched == {UUID: host.tmp_path}
        assert host.statistics.applies == {"applied": 1}
        done = list(host.guest.done)
        assert host.reconcile() is Result.DONE
        assert host.guest.done == done
        assert host.statistics.applies == {"applied": 1}
        assert not caplog.records
        assert not host.statistics.drifts

    def test_an_unobservable_value_is_logged_and_kept_until_it_is_observed(self, host, caplog):
        caplog.set_level("INFO")
        host.guest.is_found, host.guest.hidden = False, "hidepid"
        host.guest.unobserved = frozenset([EMULATOR])
        requested = request(vcpu_pinning="1", emulator_pinning="2")
        host.reconcile(requested)
        (line,) = lines(caplog, "INFO")
        why = "emulator pin can't be observed: hidepid"
        assert line.endswith(f"emulator pin 0-7 → 2 (applied, libvirt confirmed it, {why})")
        assert host.record.unobserved == why
        since = host.record.changed_at
        for hidden in ("no /proc", ""):
            host.guest.hidden = hidden
            host.guest.unobserved = frozenset([EMULATOR] if hidden else [])
            host.reconcile()
            expected = f"emulator pin can't be observed: {hidden}" if hidden else ""
            assert host.record.unobserved == expected
            assert (*host.outcome, host.record.changed_at) == (Status.APPLIED, "", since)
        assert len(host.store.history(UUID)) == 1
        assert not caplog.records

    def test_a_value_that_libvirt_reads_from_the_kernel_is_observed(self, host, caplog):
        caplog.set_level("INFO")
        host.guest.is_found, host.guest.hidden = False, "hidepid"
        host.reconcile(ONE)
        assert lines(caplog, "INFO")[0].endswith("(applied, observed through libvirt)")
        assert host.record.unobserved == ""

    def test_a_guest_that_ended_has_no_unobserved_values(self, host):
        host.guest.unobserved = frozenset([EMULATOR])
        host.reconcile(request(emulator_pinning="2"))
        assert host.record.unobserved
        host.hypervisor.guests[UUID] = exception.DomainOff("off")
        host.reconcile()
        assert (host.record.status, host.record.unobserved) == (Status.ABSENT, "")

    def test_a_partly_refused_request_may_be_unobserved_too(self, host):
        host.guest.unobserved = frozenset([EMULATOR])
        host.guest.has_cpuset_controller = False
        host.reconcile(request(emulator_pinning="2", numa_nodes="1"))
        assert host.outcome == (Status.REFUSED, "memory_unsupported")
        assert host.record.unobserved.startswith("emulator pin can't be observed")

    def test_the_duration_of_a_pass_is_counted(self, host, monkeypatch):
        moments = itertools.count(1000.0, 0.25)
        monkeypatch.setattr(reconciler, "time", SimpleNamespace(monotonic=moments.__next__))
        host.reconcile(ONE)
        assert host.statistics.seconds == 0.25
        host.guest.fails = exception.StepFailed("libvirt error 38")
        host.reconcile(request(vcpu_pinning="2"))
        # The clock is read once more in between.
        assert host.statistics.seconds == 0.25 + 0.5

    def test_warnings_are_logged_and_kept(self, host, caplog):
        caplog.set_level("INFO")
        host.reconcile(request(numa_nodes="0", vcpu_pinning="1"))
        host.reconcile(request(numa_nodes="1"))
        (_first, line) = lines(caplog, "INFO")
        note = "0 KiB of memory on node 1, 30 KiB stayed on node 0"
        assert line.endswith(f"(applied, observed on the threads); {note}")
        assert host.record.message == note

    def test_a_guest_that_has_to_move_as_well_is_reconciled_at_once(self, host):
        host.rules = Rules(overlap=Overlap.REFUSE, smt=Overlap.ALLOW)
        host.hypervisor.others = [occupant(OTHER, 1)]
        assert host.reconcile(ONE) is Result.DONE
        assert (host.outcome, host.woken) == ((Status.REFUSED, "overlap"), [])
        there = host.reconciler._placer.plan(
            request(vcpu_pinning="6"), Guest(pins=pin(0, 1)), accepted=False
        )
        host.moves[OTHER] = there.move(OTHER)
        host.reconcile()
        assert (host.outcome, host.woken) == ((Status.APPLIED, ""), [OTHER])

    def test_the_window_that_is_in_force_decides(self, host, monkeypatch):
        monkeypatch.setattr(window_timer, "now", lambda: datetime(2026, 1, 1, 12, tzinfo=UTC))
        for start, shares in (("0 12 * * *", 7), ("1 12 * * *", 5), ("59 11 * * *", 5)):
            window = Windowed(Window("w", start, 60), request(cpu_shares="7"))
            host.reconcile(Allocation(cpu_shares=5, windows=(window,)))
            assert host.guest.configured[SHARES] == shares
        bad = Windowed(Window("w", "0 0 * * *", 60), request(vcpu_pinning="9"))
        host.reconcile(Allocation(cpu_shares=6, windows=(bad,)))
        assert (host.outcome, host.guest.configured[SHARES]) == (
            (Status.REFUSED, "cpu_unknown"),
            5,
        )


class TestDrift:
    def test_a_guest_that_another_program_moved_is_corrected_and_that_is_logged(
        self, host, caplog
    ):
        host.reconcile(ONE)
        host.guest.shown[vcpu(0)] = Reading.of(CpuSet([2]))
        assert host.reconcile() is Result.CORRECTED
        assert host.guest.shown == {}
        assert host.outcome == (Status.APPLIED, "")
        assert host.record.drift == "vCPU pins 0: found 2, desired 1"
        assert lines(caplog, "WARNING") == [
            f"Instance {UUID}: drift (repinned): vCPU pins 0: found 2, desired 1; corrected"
        ]
        assert host.statistics.drifts == {"repinned": 1}

    @pytest.mark.parametrize("windows", [False, True])
    def test_after_a_restart_of_the_service_the_note_in_the_domain_counts(self, host, windows):
        night = Windowed(Window("night", "0 22 * * *", 60), request(vcpu_pinning="1"))
        host.reconcile(Allocation(ONE.vcpu_pinning, windows=(night,) * windows))
        host.begin()
        host.guest.shown[vcpu(0)] = Reading.of(CpuSet([2]))
        # What may be of another time is no drift.
        assert host.reconcile() is (Result.DONE if windows else Result.CORRECTED)
        assert host.guest.shown == {}

    @pytest.mark.parametrize("restart", ["of the guest", "of both"])
    def test_a_restarted_guest_is_placed_again(self, host, restart):
        host.reconcile(ONE)
        host.start().domain_id = 8
        if restart == "of both":
            host.begin()
        host.rules = Rules(overlap=Overlap.REFUSE)
        host.hypervisor.others = [occupant(OTHER, 1)]
        assert host.reconcile() is Result.DONE
        assert host.outcome == (Status.REFUSED, "overlap")
        host.hypervisor.others = []
        assert host.reconcile() is Result.DONE
        assert (host.outcome, host.pins()) == ((Status.APPLIED, ""), [CpuSet([1])] * 2)
        assert not host.statistics.drifts

    def test_cpus_that_went_offline_are_logged_once_and_waited_for(self, host, caplog):
        host.reconcile(request(vcpu_pinning="3-4"))
        host.guest.host = HALF
        for _ in range(2):
            assert host.reconcile() is Result.DONE
        assert host.outcome == (Status.DRIFTED, "cpu_went_offline")
        (line,) = lines(caplog, "WARNING")
        assert f"Instance {UUID}: drift (cpu_went_offline): CPUs went offline: CPU 4" in line
        assert host.statistics.drifts == {"cpu_went_offline": 1}
        host.guest.host = Guest().host
        host.reconcile()
        assert host.outcome == (Status.APPLIED, "")

    def test_cpus_that_a_control_group_lost_are_logged_with_the_group(self, host, caplog):
        host.reconcile(request(vcpu_pinning="3-4"))
        host.guest.host = replace(HOST, barred=(("/a", CpuSet([4])), ("/a/b", CpuSet([5]))))
        host.reconcile()
        assert host.outcome == (Status.DRIFTED, "cpu_not_in_slice")
        (line,) = lines(caplog, "WARNING")
        assert (
            "the control group /a, /a/b lacks CPU 4 of vCPU 0, CPU 4 of vCPU 1; set again" in line
        )


class TestRefusal:
    def test_a_refused_request_leaves_the_accepted_one_in_force(self, host, caplog):
        host.reconcile(ONE)
        host.guest.shown[vcpu(0)] = Reading.of(CpuSet([2]))
        for _ in range(2):
            assert host.reconcile(request(vcpu_pinning="9")) is Result.DONE
        assert host.outcome == (Status.REFUSED, "cpu_unknown")
        assert (host.record.accepted, host.guest.shown) == (ONE, {})
        assert host.statistics.refusals == {"cpu_unknown": 1}
        refused = [line for line in lines(caplog, "WARNING") if "refused (cpu_unknown)" in line]
        assert len(refused) == 1
        assert refused[0].endswith("; the guest stays as it is")

    def test_an_unreadable_request_leaves_the_accepted_one_in_force(self, host):
        host.reconcile(ONE)
        host.guest.shown[vcpu(0)] = Reading.of(CpuSet([2]))
        assert host.reconcile(exception.RequestInvalid("no cpuset")) is Result.DONE
        assert host.outcome == (Status.REFUSED, "request_invalid")
        assert host.guest.shown == {}

    def test_an_accepted_request_that_is_no_longer_permitted_is_logged_in_part(self, host, caplog):
        host.reconcile(request(vcpu_pinning="0:1;1:2"))
        host.rules = Rules(reserved_cpus=CpuSet([1]))
        for _ in range(2):
            assert host.reconcile() is Result.DONE
        assert host.outcome == (Status.REFUSED, "cpu_reserved")
        (line,) = lines(caplog, "WARNING")
        assert line.endswith("the rest is in force")
        assert host.statistics.refusals == {"cpu_reserved": 1}
        assert host.pins() == [CpuSet([1]), CpuSet([2])]

    def test_a_guest_that_arrived_pinned_to_reserved_cpus_does_not_stay_there(self, host, caplog):
        caplog.set_level("INFO")
        host.rules = Rules(reserved_cpus=CpuSet([1]))
        host.start(pins=pin(0, 1)).arrive(vcpu(0))
        for _ in range(2):
            assert host.reconcile(request(vcpu_pinning="0:1")) is Result.DONE
        assert host.outcome == (Status.REFUSED, "cpu_reserved")
        assert host.pins() == [ALL, ALL]
        assert host.guest.definition().baseline == {}
        (line,) = [each for each in lines(caplog, "INFO") if "another host" in each]
        assert line.endswith("vCPU pins 0: 1 → 0-7")

    def test_a_placement_that_arrived_and_is_requested_here_is_kept_and_recorded_as_local(
        self, host
    ):
        host.start(pins=pin(0, 1)).arrive(vcpu(0))
        assert host.reconcile(request(vcpu_pinning="0:1")) is Result.DONE
        assert host.outcome == (Status.APPLIED, "")
        assert host.pins() == [CpuSet([1]), ALL]
        found = host.guest.definition()
        assert (found.baseline, found.has_foreign_baseline) == ({vcpu(0): ALL}, False)

    def test_a_placement_that_arrived_and_is_not_requested_here_is_released(self, host):
        host.start(pins=pin(0, 1)).arrive(vcpu(0))
        assert host.reconcile(request(vcpu_pinning="1:2")) is Result.DONE
        assert host.pins() == [ALL, CpuSet([2])]

    def test_the_forbidden_part_of_a_placement_that_arrived_is_released(self, host):
        host.reconcile(request(vcpu_pinning="0:1;1:2"))
        host.rules = Rules(reserved_cpus=CpuSet([1]))
        host.start(pins=pin(0, 1) + pin(1, 2)).arrive(vcpu(0), vcpu(1))
        host.guest.domain_id = 8
        assert host.reconcile() is Result.DONE
        assert host.outcome == (Status.REFUSED, "cpu_reserved")
        assert host.pins() == [ALL, CpuSet([2])]

    def test_an_unreadable_request_is_refused_and_changes_no_placement(self, host):
        host.reconcile(ONE)
        with host.store._db.transaction(durable=True) as db:
            for table in ("instance", "request"):
                db.execute(f"UPDATE {table} SET requested = '[1'")
        host.guest.shown[vcpu(0)] = Reading.of(CpuSet([2]))
        assert host.reconcile() is Result.DONE
        assert host.outcome == (Status.REFUSED, "stored_invalid")
        assert host.guest.shown == {}
        host.hypervisor.guests.clear()
        assert host.reconcile() is Result.DONE
        assert host.outcome == (Status.REFUSED, "stored_invalid")

    def test_an_unreadable_placement_is_decided_again_by_the_requests(self, host, caplog):
        host.request()
        with host.store._db.transaction(durable=True) as db:
            db.execute("UPDATE instance SET requested = '[1'")
        assert host.reconcile() is Result.DONE
        assert (host.outcome, host.pins()) == ((Status.APPLIED, ""), [CpuSet([1])] * 2)
        assert "is restored from the request" in lines(caplog, "WARNING")[0]


class TestFailure:
    def test_a_busy_guest_is_retried_and_logged_once(self, host, caplog):
        caplog.set_level("INFO")
        host.guest.busy = True
        host.request()
        assert [host.reconcile() for _ in range(2)] == [Result.RETRY] * 2
        assert host.outcome == (Status.PENDING, "guest_busy")
        assert lines(caplog, "INFO") == [f"Instance {UUID}: waiting (guest_busy): a job"]
        assert not host.statistics.applies

    def test_a_failure_is_retried_and_logged_once(self, host, caplog):
        host.guest.fails = exception.StepFailed("libvirt error 38")
        host.request()
        assert [host.reconcile() for _ in range(2)] == [Result.RETRY] * 2
        assert host.outcome == (Status.FAILED, "step_failed")
        (line,) = lines(caplog, "ERROR")
        assert f"Instance {UUID}: failed (step_failed): libvirt error 38" in line
        assert host.statistics.applies == {"failed": 2}

    @pytest.mark.parametrize("why", ["starting", "ending"])
    def test_a_failure_of_a_guest_that_starts_or_ends_is_no_failure(self, host, caplog, why):
        host.guest.fails = exception.StepFailed("libvirt error 38")
        setattr(host.guest, why, True)
        assert host.reconcile(ONE) is Result.DONE
        assert host.outcome == (Status.ABSENT, "guest_absent")
        assert not lines(caplog, "ERROR")

    def test_a_hanging_call_is_kept_if_the_guest_is_known(self, host):
        hung = exception.GuestHung("reading its job has not returned")
        host.reconciler.report_hung(UUID, hung)
        assert host.record is None
        host.request()
        host.reconciler.report_hung(UUID, hung)
        assert host.outcome == (Status.FAILED, "guest_hung")


class TestAbsence:
    def test_an_absent_guest_is_waited_for(self, host, caplog):
        caplog.set_level("INFO")
        host.hypervisor.guests[UUID] = exception.DomainOff("off")
        assert host.reconcile(ONE) is Result.DONE
        assert host.outcome == (Status.ABSENT, "guest_absent")
        assert host.hypervisor.released == [UUID]
        assert not lines(caplog, "INFO")
        host.hypervisor.saved = {UUID}
        host.reconcile()
        assert "its placement was removed from the saved image" in lines(caplog, "INFO")[0]

    def test_a_refused_request_of_an_absent_guest_stays_refused(self, host):
        host.hypervisor.guests.clear()
        host.reconcile(exception.RequestInvalid("no cpuset"))
        assert host.outcome == (Status.REFUSED, "request_invalid")

    def test_a_guest_that_was_migrated_is_forgotten(self, host):
        host.reconcile(ONE)
        host.hypervisor.guests[UUID] = exception.DomainGone("gone", migrated=True)
        assert host.reconcile() is Result.DONE
        assert (host.record, host.threads.watched) == (None, {})
        assert host.hypervisor.forgotten == [UUID]

    def test_a_guest_that_nova_has_on_another_host_is_placed_after_its_grace_period(self, host):
        host.request()
        host.store.hints.save(UUID, THERE)
        assert host.reconcile() is Result.RETRY
        assert host.guest.done == []
        host.now = _GRACE_S
        assert host.reconcile() is Result.DONE
        assert host.outcome == (Status.ELSEWHERE, "claimed_elsewhere")
        assert host.pins() == [CpuSet([1])] * 2


class TestRelease:
    def test_a_guest_without_requests_gets_its_baseline_back(self, host, caplog):
        caplog.set_level("INFO")
        host.reconcile(ONE)
        caplog.clear()
        assert host.reconcile(Allocation()) is Result.DONE
        assert host.pins() == [ALL] * 2
        assert (host.record, host.threads.watched) == (None, {})
        (line,) = lines(caplog, "INFO")
        assert line.endswith("back to its baseline: vCPU pins 0-1: 1 → 0-7")
        assert host.reconcile() is Result.DONE

    def test_a_guest_with_its_baseline_is_forgotten_without_a_log_line(self, host, caplog):
        caplog.set_level("INFO")
        host.reconcile(Allocation())
        assert host.record is None
        assert not caplog.records
        host.guest.cleaning = True
        host.reconcile(Allocation())
        assert "its persistent definition was cleaned, too" in lines(caplog, "INFO")[0]

    def test_a_definition_that_can_not_be_cleaned_is_logged(self, host, caplog):
        host.guest.cleaning = exception.StepFailed("no")
        host.reconcile(Allocation())
        assert host.record is None
        assert "its persistent definition still has the former placement (no)" in caplog.text

    def test_a_definition_that_can_not_be_cleaned_now_is_waited_for(self, host):
        host.guest.cleaning = exception.GuestBusy("a job")
        assert host.reconcile(Allocation()) is Result.RETRY
        assert host.outcome == (Status.PENDING, "guest_busy")
        host.guest.cleaning = True
        assert host.reconcile() is Result.DONE
        assert host.record is None


class TestDefinition:
    """A guest's persistent definition may bring a placement of another host along."""

    @pytest.mark.parametrize(
        "requested", [ONE, request(vcpu_pinning="64")], ids=["placed", "refused"]
    )
    def test_a_definition_is_cleaned_whatever_the_outcome_of_the_request(
        self, host, caplog, requested
    ):
        caplog.set_level("INFO")
        host.guest.cleaning = True
        host.reconcile(requested)
        assert "its persistent definition was cleaned, too" in caplog.text

    def test_a_definition_is_checked_once_for_each_start_of_a_guest(self, host, caplog):
        host.reconcile(ONE)
        host.guest.cleaning = exception.StepFailed("no")
        host.reconcile()
        host.reconcile(request(vcpu_pinning="2"))
        assert "former placement" not in caplog.text
        host.guest.domain_id += 1
        host.reconcile()
        host.reconcile()
        assert caplog.text.count("former placement") == 1

    def test_a_baseline_that_can_not_be_had_now_is_waited_for(self, host):
        host.start(pins=pin(0, 4))
        host.reconcile(request(vcpu_pinning="0:1"))
        host.guest.host = HALF
        assert host.reconcile(Allocation()) is Result.DONE
        assert host.outcome == (Status.DRIFTED, "cpu_went_offline")
        host.guest.host = Guest().host
        assert host.reconcile() is Result.DONE
        assert (host.record, host.pins()[0]) == (None, CpuSet([4]))

    def test_a_forgotten_guest_is_placed_again(self, host):
        host.reconcile(ONE)
        host.store.forget(UUID, "by hand")
        host.reconcile()
        assert not host.threads.watched
        host.rules = Rules(overlap=Overlap.REFUSE)
        host.hypervisor.others = [occupant(OTHER, 2)]
        host.reconcile(request(vcpu_pinning="2"))
        assert host.outcome == (Status.REFUSED, "overlap")
