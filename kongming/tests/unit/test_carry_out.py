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

"""Carrying out a plan: all or nothing, whatever fails, wherever it fails."""

from hypothesis import given
from hypothesis import strategies as st
import pytest

from kongming import exception
from kongming.allocation import target
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import NO_QUOTA, Aspect, Quota
from kongming.executor.placing import plan
from kongming.executor.placing.apply import carry_out
from kongming.hypervisor.host import Host
from kongming.hypervisor.reading import Reading

HOST = Host(CpuSet(range(4)), CpuSet(range(4)), CpuSet([0, 1]))

sets = st.frozensets(st.integers(0, 3), min_size=1).map(CpuSet)
#: A value of each kind for a guest of three vCPUs and one iothread.
placements = st.fixed_dictionaries(
    {
        **{target.vcpu(number): sets for number in range(3)},
        target.EMULATOR: sets,
        target.iothread(1): sets,
        target.SHARES: st.integers(2, 5),
        target.QUOTA: st.sampled_from([NO_QUOTA, Quota(1000), Quota(5000, 10_000)]),
        target.MEMORY: st.sampled_from([CpuSet([0]), CpuSet([1]), CpuSet([0, 1])]),
    }
)


class FakeGuest:
    """A guest as libvirt presents it, refused values left in the cgroup included.

    :param refuses: numbers of the calls that libvirt refuses.
    :param confined_to: CPUs that a cgroup above the guest's leaves it.
    :ivar busy: numbers of the calls at which a job keeps libvirt from doing anything.
    :ivar forbidden: numbers of the calls that libvirt does not let us make.
    :ivar restarts_after: the number of calls after which the domain restarts as it first was.
    """

    restarts_after = -1
    busy = ()
    forbidden = ()

    def __init__(self, has, *, refuses=(), confined_to=HOST.online):
        self.host = HOST
        self._has = dict(has)
        self._started = False
        self._start()
        self.refuse(refuses, confined_to)

    def _start(self):
        self.configured = dict(self._has)
        self.cgroups = dict(self._has)
        self.baseline = {}

    def refuse(self, refuses, confined_to=HOST.online):
        self._calls = 0
        self._refuses = refuses
        self._confined_to = confined_to

    def set(self, what, value):
        self._begin()
        self.cgroups[what] = value
        self._answer()
        self.configured[what] = value

    def write_baseline(self, baseline):
        self._begin()
        self._answer()
        self.baseline = dict(baseline)

    def has_restarted(self):
        return self._started

    @property
    def calls(self):
        """How many calls were made."""
        return self._calls

    def _begin(self):
        if self.restarts_after == 0:
            self._start()
            self._started = True
        self.restarts_after -= 1
        if self._calls + 1 in self.busy:
            self._calls += 1
            raise exception.GuestBusy("a job")
        if self._calls + 1 in self.forbidden:
            self._calls += 1
            raise exception.LibvirtForbids("read-only")

    def _answer(self):
        self._calls += 1
        if self._calls in self._refuses:
            raise exception.StepFailed("libvirt error 38: no")

    def observe(self, targets, now=None):
        found = {what: self._observed(what) for what in targets if what in self.configured}
        return {what: Reading.of(value) for what, value in found.items()}

    def _observed(self, what):
        value = self.cgroups[what]
        return CpuSet(value & self._confined_to) if what.aspect is Aspect.VCPU else value


def steps_for(guest, desired):
    configured = dict(guest.configured)
    state = plan.GuestState(configured, configured, guest.observe(configured), guest.baseline)
    return plan.make(desired, state, HOST)


@given(placements, placements, st.data())
def test_a_refused_step_leaves_the_guest_as_it_was(before, desired, data):
    refused = data.draw(st.integers(1, len(before) + 1))
    guest = FakeGuest(before, refuses={refused})
    steps = steps_for(guest, desired)
    if len(steps.steps) < refused:
        carry_out(steps, guest)
        assert guest.configured == desired == guest.cgroups
        changed = {what: before[what] for what in before if before[what] != desired[what]}
        assert guest.baseline == changed
        return
    with pytest.raises(exception.StepFailed) as failure:
        carry_out(steps, guest)
    assert guest.configured == before == guest.cgroups
    assert guest.baseline == {}
    assert "libvirt error 38" in str(failure.value)
    assert str(failure.value).endswith("the guest is as it was before")


@given(placements, st.lists(placements.map(dict), min_size=1, max_size=4), st.data())
def test_the_baseline_comes_back_whatever_was_requested_in_between(before, requests, data):
    guest = FakeGuest(before)
    for desired in requests:
        part = data.draw(st.sets(st.sampled_from(sorted(desired))))
        desired = {what: desired[what] for what in part}
        carry_out(steps_for(guest, desired), guest)
        assert guest.configured == before | desired
    carry_out(steps_for(guest, {}), guest)
    assert guest.configured == before
    assert guest.baseline == {}


@pytest.mark.parametrize("times", [1, 2, 20])
@pytest.mark.parametrize("first", range(1, 10))
def test_whatever_fails_a_value_that_the_guest_did_not_have_before_is_recorded(first, times):
    before = {target.vcpu(number): HOST.online for number in range(3)}
    once, then = ({what: CpuSet([cpu]) for what in before} for cpu in (1, 2))
    del then[target.vcpu(2)]
    for desired in (then, {}):
        guest = FakeGuest(before)
        carry_out(steps_for(guest, once), guest)
        steps = steps_for(guest, desired)
        # It is carried out, and observed elsewhere; going back fails, too.
        guest.refuse(range(first, first + times), confined_to=CpuSet([3]))
        with pytest.raises(exception.Failed):
            carry_out(steps, guest)
        changed = {what for what in before if guest.configured[what] != before[what]}
        assert changed <= guest.baseline.keys()
        assert guest.baseline.items() <= before.items()
        guest.refuse(())
        carry_out(steps_for(guest, {}), guest)
        assert (guest.configured, guest.baseline) == (before, {})


def test_threads_that_run_on_other_cpus_are_a_failure_and_undone():
    before = {target.vcpu(0): CpuSet([1]), target.vcpu(1): CpuSet([1])}
    desired = {target.vcpu(0): CpuSet([2, 3]), target.vcpu(1): CpuSet([2])}
    guest = FakeGuest(before, confined_to=CpuSet([1, 2]))
    with pytest.raises(exception.NotVerified, match="vCPU pins 0: 2, desired 2-3"):
        carry_out(steps_for(guest, desired), guest)
    assert guest.configured == before


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_guest_that_becomes_busy_gets_all_former_values_back(call):
    before = {target.vcpu(0): CpuSet([0]), target.vcpu(1): CpuSet([0])}
    guest = FakeGuest(before)
    guest.busy = {call}
    with pytest.raises(exception.GuestBusy, match="^a job; the guest is as it was before$"):
        carry_out(steps_for(guest, dict.fromkeys(before, CpuSet([1]))), guest)
    assert guest.configured == before == guest.cgroups
    assert guest.baseline == {}


@pytest.mark.parametrize("call", [2, 3, 4])
def test_a_guest_that_stays_busy_is_retried_once_and_keeps_its_note(call):
    before = {target.vcpu(number): CpuSet([0]) for number in range(3)}
    guest = FakeGuest(before)
    guest.busy = range(call, call + 10)
    with pytest.raises(exception.GuestBusy, match="^a job; undone, except "):
        carry_out(steps_for(guest, dict.fromkeys(before, CpuSet([1]))), guest)
    # The note was the first call; the undoing is tried if there was anything to undo but it.
    assert guest.calls == call + 1
    assert guest.baseline == before
    guest.busy = ()
    carry_out(steps_for(guest, {}), guest)
    assert (guest.configured, guest.baseline) == (before, {})


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_step_that_libvirt_forbids_is_not_undone(call):
    before = {target.vcpu(0): CpuSet([0]), target.vcpu(1): CpuSet([0])}
    guest = FakeGuest(before)
    guest.forbidden = {call}
    with pytest.raises(exception.LibvirtForbids, match="^read-only; the guest is as it was befo"):
        carry_out(steps_for(guest, dict.fromkeys(before, CpuSet([1]))), guest)
    assert guest.configured == before == guest.cgroups
    assert guest.baseline == {}


def test_steps_done_before_libvirt_forbade_one_are_named_if_they_stay():
    before = {target.vcpu(0): CpuSet([0]), target.vcpu(1): CpuSet([0])}
    guest = FakeGuest(before)
    guest.forbidden = {3, 4, 5}
    with pytest.raises(exception.LibvirtForbids, match=r"undone, except vCPU 0 \(read-only\)"):
        carry_out(steps_for(guest, dict.fromkeys(before, CpuSet([1]))), guest)
    assert guest.baseline == before


def test_a_guest_that_cannot_be_pinned_at_all_is_unchanged():
    guest = FakeGuest({target.vcpu(0): CpuSet([0])})

    def unsupported(what, value):
        raise exception.PinningUnsupported("a single thread")

    guest.set = unsupported
    with pytest.raises(exception.PinningUnsupported, match="the guest is as it was before"):
        carry_out(steps_for(guest, {target.vcpu(0): CpuSet([1])}), guest)
    assert guest.baseline == {}


def test_a_step_that_cannot_be_undone_is_named():
    before = {target.vcpu(0): CpuSet([0]), target.vcpu(1): CpuSet([0])}
    desired = {target.vcpu(0): CpuSet([1]), target.vcpu(1): CpuSet([1])}
    guest = FakeGuest(before, refuses={3, 5})
    with pytest.raises(exception.StepFailed, match=r"undone, except vCPU 0 \(libvirt error 38"):
        carry_out(steps_for(guest, desired), guest)
    assert guest.configured == {target.vcpu(0): {1}, target.vcpu(1): {0}}


def test_a_step_that_could_not_be_undone_keeps_its_baseline():
    before = {target.vcpu(0): CpuSet([0]), target.vcpu(1): CpuSet([0])}
    desired = {target.vcpu(0): CpuSet([1]), target.vcpu(1): CpuSet([1])}
    # The note, both vCPUs, of which the second is refused; its undoing; then
    # the undoing of the first is refused, too.
    guest = FakeGuest(before, refuses={3, 5})
    with pytest.raises(exception.StepFailed, match="undone, except vCPU 0"):
        carry_out(steps_for(guest, desired), guest)
    assert guest.baseline == before
    carry_out(steps_for(guest, desired), guest)
    assert guest.baseline == before


def test_a_step_that_is_skipped_because_its_baseline_could_not_be_recorded_is_named():
    before = {target.vcpu(0): CpuSet([0]), target.vcpu(1): CpuSet([0])}
    guest = FakeGuest(before)
    carry_out(steps_for(guest, dict.fromkeys(before, CpuSet([1]))), guest)
    # Both vCPUs go back; the note is neither deleted nor written again.
    guest.refuse({3, 4})
    note = r"the baseline note \(libvirt error 38: no\)"
    with pytest.raises(exception.StepFailed, match=f"undone, except {note}, vCPU 1, vCPU 0$"):
        carry_out(steps_for(guest, {}), guest)
    assert guest.configured == before


@given(placements, placements, placements, st.integers(0, 20), st.booleans())
def test_a_domain_that_restarts_meanwhile_gets_its_initial_values_back(
    before, once, then, calls, refused
):
    """Whatever steps were for the one before, and were taken with the next one."""
    guest = FakeGuest(before)
    carry_out(steps_for(guest, once), guest)
    steps = steps_for(guest, then)
    guest.restarts_after = calls
    if refused:
        guest.refuse({len(steps.steps)})
    try:
        carry_out(steps, guest)
    except exception.GuestBusy as busy:
        assert "was restarted" in str(busy)
    except exception.StepFailed:
        assert calls > len(steps.steps)
    guest.refuse(())
    guest.restarts_after, guest._started = -1, False
    carry_out(steps_for(guest, {}), guest)
    assert guest.configured == before == guest.cgroups
    assert guest.baseline == {}
