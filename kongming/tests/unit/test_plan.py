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

"""Planning: from what a guest has to what is wanted, and no step more."""

from hypothesis import given
from hypothesis import strategies as st
import pytest

from kongming import exception
from kongming.cpuset import CpuSet
from kongming.executor import guard, plan
from kongming.hypervisor.definition import Definition
from kongming.hypervisor.host import HostCpus

HOST = CpuSet(range(8))

sets = st.frozensets(st.integers(0, 7), min_size=1).map(CpuSet)
vcpus = st.dictionaries(st.integers(0, 5), sets)


def state(pins, affinity=None, baseline=None):
    return plan.GuestState(pins, pins if affinity is None else affinity, baseline)


@given(vcpus, st.data())
def test_carried_out_the_plan_brings_the_wanted_and_nothing_else(wanted, data):
    has = {v: data.draw(sets) for v in range(6)}
    runs = {v: data.draw(st.just(has[v]) | sets) for v in range(6)}
    after_pins, after_runs = dict(has), dict(runs)
    steps = plan.place(wanted, state(has, runs), HOST)
    for pin in steps.pins():
        assert pin.former == has[pin.vcpu]
        after_pins[pin.vcpu] = after_runs[pin.vcpu] = pin.wanted
    assert after_pins == has | wanted
    assert all(after_runs[v] == cpus for v, cpus in wanted.items())
    assert {v: after_runs[v] for v in runs if v not in wanted} == {
        v: runs[v] for v in runs if v not in wanted
    }
    assert not plan.place(wanted, state(after_pins, after_runs), HOST)


def test_a_thread_that_was_moved_behind_libvirts_back_is_pinned_again():
    has = {0: CpuSet([1])}
    steps = plan.place(has, state(has, {0: CpuSet([2])}), HOST)
    assert [step.vcpu for step in steps.pins()] == [0]


def test_a_vcpu_that_is_not_plugged_in_has_no_thread_to_compare():
    has = state({0: CpuSet([1]), 1: CpuSet([0])}, {0: CpuSet([1])})
    steps = plan.place({0: CpuSet([1]), 1: CpuSet([2])}, has, HOST)
    assert [step.vcpu for step in steps.pins()] == [1]


def test_the_kernel_leaves_offline_cpus_out():
    wanted = {0: HOST}
    online = CpuSet([0, 1, 2])
    assert not plan.place(wanted, state(wanted, {0: online}), online)
    assert not plan.differences(wanted, {0: online}, online)
    differences = plan.differences(wanted, {0: CpuSet([0])}, online)
    assert differences == "vCPU 0 runs on 0, wanted 0-7"


def test_the_baseline_is_noted_once_and_before_anything_is_changed():
    has, wanted = {0: HOST}, {0: CpuSet([1])}
    assert plan.place(wanted, state(has), HOST).steps[0] == plan.KeepBaseline(has)
    assert len(plan.place(wanted, state(has, baseline=has), HOST).steps) == 1
    assert not plan.place(has, state(has), HOST)
    back = plan.restore(has, state(wanted, baseline=has), HOST)
    assert back.steps == (plan.PinVcpu(0, wanted[0], HOST), plan.ForgetBaseline(has))


def test_a_plan_is_short_to_read():
    has = {0: HOST, 1: HOST, 2: CpuSet([5])}
    wanted = {0: CpuSet([1]), 1: CpuSet([1]), 2: CpuSet([6])}
    assert str(plan.place(wanted, state(has), HOST)) == "vCPU pins 0-1: 0-7 → 1, 2: 5 → 6"
    assert str(plan.place(has, state(has), HOST)) == "nothing to change"


@given(sets, st.integers(1, 8), sets)
def test_the_guard_lets_through_exactly_the_online_cpus(asked, count, online):
    host = HostCpus(count, CpuSet(online & set(range(count))))
    try:
        guard.check_cpus(asked, host)
    except exception.CpuUnknown:
        assert max(asked) >= count
    except exception.CpuOffline:
        assert max(asked) < count
        assert asked - host.online
    else:
        assert asked <= host.online


def test_the_guard_says_what_there_is():
    host = HostCpus(8, CpuSet(range(7)))
    with pytest.raises(exception.CpuUnknown, match="CPU 8-9 does not exist.* 0 to 7"):
        guard.check_cpus(CpuSet([1, 8, 9]), host)
    with pytest.raises(exception.CpuOffline, match="CPU 7 is offline: online are 0-6"):
        guard.check_cpus(CpuSet([6, 7]), host)


@pytest.mark.parametrize(
    ("nova", "owns", "refusal"),
    [
        (True, None, None),
        (False, None, exception.NotNova),
        (False, "NUMA", exception.NotNova),
        (True, "NUMA", exception.NovaOwned),
    ],
)
def test_only_guests_of_nova_that_nova_does_not_place_are_touched(nova, owns, refusal):
    definition = Definition(nova=nova, nova_owns=owns, vcpus=1, pins={}, baseline=None)
    if refusal is None:
        guard.check_guest(definition)
    else:
        with pytest.raises(refusal):
            guard.check_guest(definition)
