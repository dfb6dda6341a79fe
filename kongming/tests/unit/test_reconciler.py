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
from kongming.cpuset import CpuSet
from kongming.executor import plan
from kongming.executor.reconciler import carry_out
from kongming.hypervisor.host import HostCpus

HOST = HostCpus(4, CpuSet(range(4)))

sets = st.frozensets(st.integers(0, 3), min_size=1).map(CpuSet)


class FakeGuest:
    """A guest as libvirt presents it, refused pins left in the cgroup included.

    :param refuses: numbers of the calls that libvirt refuses.
    :param confined_to: CPUs that a cgroup above the guest's leaves it.
    """

    def __init__(self, pins, *, refuses=(), confined_to=HOST.online):
        self.host = HOST
        self.pins = dict(pins)
        self.cgroups = dict(pins)
        self.baseline = None
        self._calls = 0
        self._refuses = refuses
        self._confined_to = confined_to

    def pin_vcpu(self, vcpu, cpus):
        self.cgroups[vcpu] = cpus
        self._call()
        self.pins[vcpu] = cpus

    def keep_baseline(self, pins):
        self._call()
        self.baseline = dict(pins)

    def forget_baseline(self):
        self._call()
        self.baseline = None

    def _call(self):
        self._calls += 1
        if self._calls in self._refuses:
            raise exception.StepFailed("libvirt error 38: no")

    def affinity(self):
        return {
            vcpu: CpuSet(cpus & self.cgroups[vcpu] & self._confined_to)
            for vcpu, cpus in self.pins.items()
        }


def steps_for(guest, wanted):
    state = plan.GuestState(dict(guest.pins), guest.affinity(), guest.baseline)
    return plan.place(wanted, state, HOST.online)


@given(st.lists(sets, min_size=1, max_size=5), st.lists(sets, min_size=5, max_size=5), st.data())
def test_a_refused_step_leaves_the_guest_as_it_was(has, asked, data):
    before = dict(enumerate(has))
    wanted = {vcpu: asked[vcpu] for vcpu in before}
    refused = data.draw(st.integers(1, len(before) + 1))
    guest = FakeGuest(before, refuses={refused})
    steps = steps_for(guest, wanted)
    if len(steps.steps) < refused:
        carry_out(steps, guest)
        assert guest.pins == wanted == guest.affinity()
        assert guest.baseline == (before if steps else None)
        return
    with pytest.raises(exception.StepFailed) as failure:
        carry_out(steps, guest)
    assert guest.pins == before == guest.cgroups
    assert guest.baseline is None
    assert "libvirt error 38" in str(failure.value)
    assert str(failure.value).endswith("the guest is as it was before")


def test_threads_that_run_elsewhere_are_a_failure_and_undone():
    before = {0: CpuSet([1]), 1: CpuSet([1])}
    wanted = {0: CpuSet([2, 3]), 1: CpuSet([2])}
    guest = FakeGuest(before, confined_to=CpuSet([1, 2]))
    with pytest.raises(exception.NotVerified, match="vCPU 0 runs on 2, wanted 2-3"):
        carry_out(steps_for(guest, wanted), guest)
    assert guest.pins == before


def test_what_cannot_be_undone_is_named():
    before = {0: CpuSet([0]), 1: CpuSet([0])}
    wanted = {0: CpuSet([1]), 1: CpuSet([1])}
    guest = FakeGuest(before, refuses={3, 5})
    with pytest.raises(exception.StepFailed, match=r"undone, except vCPU 0 \(libvirt error 38"):
        carry_out(steps_for(guest, wanted), guest)
    assert guest.pins == {0: CpuSet([1]), 1: CpuSet([0])}
