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

"""What libvirt has of an instance, and what its events report about it."""

from contextlib import nullcontext

import libvirt
import pytest

from kongming import exception
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import EMULATOR
from kongming.hypervisor import hypervisor, locality
from kongming.hypervisor.hypervisor import Hypervisor
from kongming.hypervisor.process import NOT_FOUND
from kongming.tests.kernel import PID
from kongming.tests.libvirt_errors import error
from kongming.tests.unit.domains import UUID, Domain
from kongming.tests.unit.machine import Connection, Machine

STOPPED, UNDEFINED = libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_UNDEFINED
STARTED, RESUMED = libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_RESUMED
MIGRATED, DESTROYED = (
    libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED,
)


def look(domain=None):
    connection = Connection(domain)
    return Hypervisor("test:///default", lambda: nullcontext(connection))


def happen(found, event, detail=0, uuid=UUID):
    found._lifecycle(None, Domain(UUIDString=uuid), event, detail, None)


def absent(found, uuid=UUID):
    with pytest.raises(exception.GuestAbsent) as raised, found.guest(uuid):
        pass
    return raised.value


def test_a_domain_that_is_off_differs_from_a_missing_one():
    assert isinstance(absent(look(Domain(ID=-1))), exception.DomainOff)
    gone = absent(look())
    assert isinstance(gone, exception.DomainGone)
    assert not gone.migrated
    assert gone.reason == "guest_absent"


@pytest.mark.parametrize(
    ("happened", "migrated"),
    [
        ([(STOPPED, MIGRATED)], True),
        ([(STOPPED, MIGRATED), (UNDEFINED, 0)], True),
        ([(STOPPED, DESTROYED)], False),
        ([(UNDEFINED, 0)], False),
        # It has come back since.
        ([(STOPPED, MIGRATED), (STARTED, 0), (STOPPED, DESTROYED)], False),
        ([(STOPPED, MIGRATED), (RESUMED, 0)], False),
    ],
)
def test_a_guest_that_was_migrated_away_is_recognized_by_libvirts_events(happened, migrated):
    found = look()
    for event, detail in happened:
        happen(found, event, detail)
    assert absent(found).migrated is migrated
    assert not absent(found, UUID[:-1] + "0").migrated


def test_that_a_guest_was_migrated_away_counts_once():
    found = look()
    happen(found, STOPPED, MIGRATED)
    assert absent(found).migrated
    assert absent(found).migrated
    found.forget_migrated(UUID)
    assert not absent(found).migrated


def test_guests_that_were_migrated_away_do_not_accumulate(monkeypatch):
    monkeypatch.setattr(hypervisor, "_MIGRATED_MAX", 2)
    found = look()
    for number in range(3):
        happen(found, STOPPED, MIGRATED, uuid=f"{UUID[:-1]}{number}")
    recognized = [absent(found, f"{UUID[:-1]}{number}").migrated for number in range(3)]
    assert recognized == [False, True, True]


class Suspended(Domain):
    """A suspended guest; what is done with its image fails, and then it is as it is ``then``."""

    def __init__(self, fails, then):
        super().__init__(
            isActive=0,
            hasManagedSaveImage=1,
            managedSaveGetXMLDesc=error(fails),
        )
        self._then = then

    def managedSaveGetXMLDesc(self, _flags):  # noqa: N802
        self._answers |= self._then
        raise self._answers["managedSaveGetXMLDesc"]


@pytest.mark.parametrize(
    "then",
    [
        {"isActive": 1},
        {"hasManagedSaveImage": 0},
        {"isActive": error(libvirt.VIR_ERR_NO_DOMAIN)},
        {"hasManagedSaveImage": error(libvirt.VIR_ERR_NO_DOMAIN)},
    ],
    ids=["resumed", "its image discarded", "deleted", "deleted a moment later"],
)
def test_a_suspended_guest_that_has_ended_has_no_values_to_release(then):
    domain = Suspended(libvirt.VIR_ERR_NO_DOMAIN, then)
    assert look(domain).release_saved(UUID) is False


def test_an_image_that_cannot_be_changed_is_a_failure():
    with pytest.raises(exception.Failed, match="changing the saved image"):
        look(Suspended(libvirt.VIR_ERR_INTERNAL_ERROR, {})).release_saved(UUID)


def lines(caplog):
    found = [(each.levelname, each.getMessage()) for each in caplog.records]
    caplog.clear()
    return [(level, line) for level, line in found if level != "DEBUG"]


def test_a_local_libvirt_is_recognized_by_its_answers_through_any_uri(tmp_path, caplog):
    caplog.set_level("INFO")
    machine = Machine(tmp_path)
    assert machine.hypervisor.online_cpus() is None
    for _ in range(2):
        assert machine.observe() == (True, "")
    expected = "is on this machine (libvirt reports the same CPU time)"
    assert lines(caplog) == [("INFO", f"libvirt at qemu+tcp://127.0.0.1/system {expected}")]
    assert machine.hypervisor.online_cpus() == CpuSet(range(4))
    # It is checked again when libvirt is another one, and logged if the result differs.
    machine.hypervisor.invalidate()
    assert machine.hypervisor.locality().here
    assert not caplog.records
    machine.hypervisor.invalidate()
    machine.connection.counted = 4
    assert not machine.hypervisor.locality().here
    ((level, line),) = lines(caplog)
    assert (level, "is on another machine (" in line) == ("WARNING", True)
    assert machine.hypervisor.online_cpus() is None


def test_a_guest_that_is_found_has_more_details_than_libvirt_counts(tmp_path, caplog):
    caplog.set_level("INFO")
    machine = Machine(tmp_path)
    machine.connection.counted = 6
    assert machine.observe() == (True, "")
    levels = [level for level, _line in lines(caplog)]
    assert levels == ["WARNING", "INFO"]
    assert machine.hypervisor.locality() == locality.FOUND
    machine.observe()
    assert not caplog.records


def test_guests_of_another_machine_are_not_observed_and_the_reason_is_logged_once(
    tmp_path, caplog
):
    machine = Machine(tmp_path)
    machine.vanish()
    machine.connection.counted = 6
    for _ in range(3):
        observable, why = machine.observe()
        assert (observable, why.startswith("libvirt is on another machine (")) == (False, True)
    logged = [line for _level, line in lines(caplog)]
    assert [line.partition("(")[0] for line in logged] == [
        "libvirt at qemu+tcp://127.0.0.1/system is on another machine ",
        "The threads of guests can't be observed ",
    ]


def test_a_hidden_guest_is_logged_once_and_once_when_it_is_visible_again(tmp_path, caplog):
    caplog.set_level("INFO")
    machine = Machine(tmp_path)
    (machine.proc / "self").rename(tmp_path / "self")
    machine.vanish()
    for _ in range(2):
        assert machine.observe() == (False, f"there is no {machine.proc}: mount it")
    assert [level for level, _line in lines(caplog)] == ["INFO", "WARNING"]
    machine.appear()
    for _ in range(2):
        assert machine.observe() == (True, "")
    assert lines(caplog) == [("INFO", "The threads of guests can be observed again")]


def test_a_guest_that_may_just_have_ended_is_logged_only_if_it_still_runs(tmp_path, caplog):
    caplog.set_level("WARNING")
    machine = Machine(tmp_path)
    machine.vanish()
    assert machine.observe() == (False, NOT_FOUND)
    assert not caplog.records
    happen(machine.hypervisor, STOPPED, DESTROYED)
    machine.observe()
    assert not caplog.records
    machine.observe()
    ((level, line),) = lines(caplog)
    assert (level, NOT_FOUND in line) == ("WARNING", True)


def test_a_visible_guest_that_ends_is_not_hidden_however_long_libvirt_takes(tmp_path, caplog):
    caplog.set_level("WARNING")
    machine = Machine(tmp_path)
    assert machine.observe() == (True, "")
    machine.vanish()
    for _ in range(3):
        assert machine.observe() == (False, NOT_FOUND)
    assert not caplog.records
    assert machine.hypervisor.visibility.gaps() == []


def test_a_guest_that_ends_during_repeated_checks_is_not_hidden(tmp_path, caplog):
    caplog.set_level("WARNING")
    machine = Machine(tmp_path)
    machine.observe()
    machine.vanish()
    # The event of its end arrived after it was looked up.
    happen(machine.hypervisor, STOPPED, DESTROYED)
    machine.connection.domain.isActive = lambda: False
    for _ in range(2):
        machine.observe()
    assert not caplog.records


def test_a_visible_guest_that_is_hidden_after_its_next_start_is_logged(tmp_path, caplog):
    caplog.set_level("WARNING")
    machine = Machine(tmp_path)
    machine.observe()
    machine.vanish()
    # No event of its end arrived.
    machine.connection.domain.ID = lambda: 7
    machine.observe()
    assert not caplog.records
    machine.observe()
    ((level, line),) = lines(caplog)
    assert (level, NOT_FOUND in line) == ("WARNING", True)


def test_a_visible_guest_that_becomes_hidden_for_a_known_reason_is_logged(tmp_path, caplog):
    caplog.set_level("WARNING")
    machine = Machine(tmp_path)
    machine.observe()
    (machine.proc / "self").rename(tmp_path / "self")
    (machine.proc / str(PID)).rename(tmp_path / "process")
    machine.observe()
    machine.observe()
    assert len(lines(caplog)) == 1


def test_a_guest_that_is_not_found_costs_one_walk_through_the_processes(tmp_path, monkeypatch):
    machine = Machine(tmp_path)
    machine.vanish()
    machine.hypervisor.locality()
    walks = []
    monkeypatch.setattr(
        "kongming.hypervisor.process.Processes._search",
        lambda _self, instance_uuid: walks.append(instance_uuid),
    )
    machine.observe()
    assert walks == [UUID]


def test_a_driver_without_processes_costs_no_walk_and_no_warning(tmp_path, caplog):
    caplog.set_level("WARNING")
    machine = Machine(tmp_path, "test:///default")
    machine.connection.getType = lambda: "TEST"
    for _ in range(2):
        assert machine.observe() == (False, "libvirt's driver TEST has no processes")
    assert not lines(caplog)


def test_control_groups_that_are_not_mounted_hide_no_thread(tmp_path, caplog):
    caplog.set_level("WARNING")
    machine = Machine(tmp_path)
    machine.kernel.cgroup.rename(tmp_path / "elsewhere")
    for _ in range(2):
        with machine.hypervisor.guest(UUID) as guest:
            assert guest.observe([EMULATOR])[EMULATOR].by_kernel
            assert (guest.is_found, guest.has_cpu_controller) == (True, True)
            assert "not mounted here" in guest.hidden
    ((_level, line),) = lines(caplog)
    assert line.startswith("The control groups of guests can't be observed (")
    (tmp_path / "elsewhere").rename(machine.kernel.cgroup)
    machine.observe()
    assert machine.hypervisor.visibility.gaps() == []
