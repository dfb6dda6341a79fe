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

"""Planning: from what a guest has to the desired allocation, without a step too many."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from kongming.allocation import target
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import NO_QUOTA, Quota
from kongming.allocation.target import vcpu as v
from kongming.executor.placing import plan
from kongming.hypervisor.host import Host
from kongming.hypervisor.reading import Part, Reading

ALL = CpuSet(range(8))
HOST = Host(ALL, ALL, CpuSet([0, 1]))

sets = st.frozensets(st.integers(0, 7), min_size=1).map(CpuSet)
vcpus = st.dictionaries(st.integers(0, 5).map(v), sets)


def state(configured, observed=None, baseline=None, had=None):
    return plan.GuestState(
        configured if had is None else had,
        configured,
        readings(observed or configured),
        baseline or {},
    )


def readings(values):
    return {what: Reading.of(value) for what, value in values.items()}


def v_pins(**pins):
    return {v(int(number[1:])): CpuSet.parse(cpus) for number, cpus in pins.items()}


@given(vcpus, st.data())
def test_a_plan_reaches_exactly_the_desired_values(desired, data):
    has = {v(n): data.draw(sets) for n in range(6)}
    runs = {what: data.draw(st.just(has[what]) | sets) for what in has}
    after, observed = dict(has), dict(runs)
    steps = plan.make(desired, state(has, runs), HOST)
    for change in steps.changes():
        assert change.former == has[change.target]
        after[change.target] = observed[change.target] = change.desired
    assert after == has | desired
    assert all(observed[what] == cpus for what, cpus in desired.items())
    untouched = has.keys() - desired.keys()
    assert {what: observed[what] for what in untouched} == {what: runs[what] for what in untouched}
    assert not plan.make(desired, state(after, observed), HOST)


def test_a_thread_that_was_moved_behind_libvirts_back_is_pinned_again():
    has = v_pins(v0="1")
    steps = plan.make(has, state(has, v_pins(v0="2")), HOST)
    assert [change.target for change in steps.changes()] == [v(0)]


def test_a_vcpu_that_is_not_plugged_in_has_no_thread_to_compare():
    has = state(v_pins(v0="1", v1="0"), v_pins(v0="1"))
    steps = plan.make(v_pins(v0="1", v1="2"), has, HOST)
    assert [change.target for change in steps.changes()] == [v(1)]


def test_the_kernel_leaves_offline_cpus_out():
    desired = v_pins(v0="0-7")
    host = Host(ALL, CpuSet([0, 1, 2]), cgroup=2)
    steps = plan.make(desired, state(desired, v_pins(v0="0-2")), host)
    assert not steps
    assert steps.unusable == v_pins(v0="3-7")
    assert not plan.differences(desired, readings(v_pins(v0="0-2")), host)
    found = plan.differences(desired, readings(v_pins(v0="0")), host)
    assert found == {v(0): Part(CpuSet([0]))}


def test_with_cgroup_v1_the_online_part_is_set_and_the_whole_once_it_is_back():
    desired, has = v_pins(v0="6-7"), v_pins(v0="6-7")
    without = Host(ALL, CpuSet(range(7)), cgroup=1)
    steps = plan.make(desired, state(has, v_pins(v0="0-6")), without)
    assert [change.desired for change in steps.changes()] == [CpuSet([6])]
    assert not plan.make(desired, state(v_pins(v0="6"), v_pins(v0="6")), without)
    again = Host(ALL, ALL, cgroup=1)
    steps = plan.make(desired, state(v_pins(v0="6"), v_pins(v0="6")), again)
    assert [change.desired for change in steps.changes()] == [CpuSet([6, 7])]


def test_a_target_without_online_cpus_is_not_set():
    desired = v_pins(v0="7", v1="1")
    for cgroup in (1, 2, None):
        host = Host(ALL, CpuSet(range(7)), cgroup=cgroup)
        steps = plan.make(desired, state(v_pins(v0="7", v1="0"), v_pins(v0="0-6", v1="0")), host)
        assert [change.target for change in steps.changes()] == [v(1)]
        assert steps.unusable == v_pins(v0="7")


def test_the_baseline_is_recorded_once_before_any_change():
    has, desired = v_pins(v0="0-7", v1="0-7"), v_pins(v0="1")
    first = v_pins(v0="0-7")
    assert plan.make(desired, state(has), HOST).steps[0] == plan.KeepBaseline({}, first)
    assert len(plan.make(desired, state(has, baseline=first), HOST).steps) == 1
    assert not plan.make(has, state(has), HOST)


def test_a_target_that_is_no_longer_desired_returns_to_the_baseline():
    baseline = v_pins(v0="0-7", v1="3")
    has = v_pins(v0="1", v1="1", v2="5")
    steps = plan.make(v_pins(v1="1", v2="6"), state(has, baseline=baseline), HOST)
    assert steps.steps == (
        plan.KeepBaseline(baseline, baseline | v_pins(v2="5")),
        plan.Change(v(0), CpuSet([1]), ALL),
        plan.Change(v(2), CpuSet([5]), CpuSet([6])),
        plan.KeepBaseline(baseline | v_pins(v2="5"), v_pins(v1="3", v2="5")),
    )
    back = plan.make({}, state(has, baseline=baseline), HOST)
    assert back.steps == (
        plan.Change(v(0), CpuSet([1]), ALL),
        plan.Change(v(1), CpuSet([1]), CpuSet([3])),
        plan.KeepBaseline(baseline, {}),
    )


def test_a_baseline_with_offline_cpus_is_kept_until_it_can_be_restored():
    baseline, has = v_pins(v0="0-7"), v_pins(v0="1")
    without = Host(ALL, CpuSet(range(7)), cgroup=1)
    steps = plan.make({}, state(has, baseline=baseline), without)
    assert steps.steps == (plan.Change(v(0), CpuSet([1]), CpuSet(range(7))),)
    assert steps.unusable == v_pins(v0="7")
    v2 = Host(ALL, CpuSet(range(7)), cgroup=2)
    steps = plan.make({}, state(has, baseline=baseline), v2)
    assert steps.steps == (plan.Change(v(0), CpuSet([1]), ALL), plan.KeepBaseline(baseline, {}))
    assert not steps.unusable


def test_an_unplugged_vcpu_is_not_restored():
    steps = plan.make({}, state(v_pins(v0="1"), baseline=v_pins(v0="0-7", v3="0-7")), HOST)
    assert [change.target for change in steps.changes()] == [v(0)]
    assert steps.steps[-1].baseline == {}


def test_a_plan_is_short_to_read():
    has = v_pins(v0="0-7", v1="0-7", v2="5")
    desired = v_pins(v0="1", v1="1", v2="6")
    assert str(plan.make(desired, state(has), HOST)) == "vCPU pins 0-1: 0-7 → 1, 2: 5 → 6"
    assert str(plan.make(has, state(has), HOST)) == "nothing to change"


def test_a_plan_names_all_its_changes():
    has = {
        v(0): ALL,
        target.EMULATOR: ALL,
        target.iothread(1): ALL,
        target.SHARES: 1024,
        target.QUOTA: NO_QUOTA,
        target.MEMORY: CpuSet([0, 1]),
    }
    desired = {
        v(0): CpuSet([1]),
        target.EMULATOR: CpuSet([2]),
        target.iothread(1): CpuSet([3]),
        target.SHARES: 200,
        target.QUOTA: Quota(50_000),
        target.MEMORY: CpuSet([1]),
    }
    assert str(plan.make(desired, state(has), HOST)) == (
        "vCPU pins 0: 0-7 → 1; emulator pin 0-7 → 2; iothread pins 1: 0-7 → 3; "
        "CPU shares 1024 → 200; vCPU quota none → 50000/100000 µs; memory nodes 0-1 → 1"
    )


def test_one_differing_thread_is_enough_for_a_step():
    desired = {target.EMULATOR: CpuSet([1])}
    left = plan.GuestState(
        desired,
        desired,
        {target.EMULATOR: Reading((Part(CpuSet([1])), Part(CpuSet([2]), "IO")))},
        {},
    )
    assert [change.target for change in plan.make(desired, left, HOST).changes()] == [
        target.EMULATOR
    ]
    assert plan.differences(desired, left.observed, HOST) == {
        target.EMULATOR: Part(CpuSet([2]), "IO")
    }


def test_a_quota_that_one_vcpu_has_lost_is_set_again():
    desired = {target.QUOTA: Quota(50_000)}
    lost = Reading((Part(Quota(50_000), "vCPU 0"), Part(NO_QUOTA, "vCPU 2")))
    steps = plan.make(desired, plan.GuestState(desired, desired, {target.QUOTA: lost}, {}), HOST)
    assert [change.target for change in steps.changes()] == [target.QUOTA]


def test_an_unconfigured_target_returns_to_where_it_ran():
    configured, had = v_pins(v0="0-7"), v_pins(v0="2-3")
    steps = plan.make(v_pins(v0="1"), state(configured, had, had=had), HOST)
    assert steps.steps == (
        plan.KeepBaseline({}, had),
        plan.Change(v(0), CpuSet([2, 3]), CpuSet([1])),
    )


def test_a_baseline_of_a_larger_host_is_cut_to_the_existing_cpus_and_forgotten():
    baseline = v_pins(v0="0-127", v1="64-127") | {target.MEMORY: CpuSet([1, 2])}
    has = v_pins(v0="1", v1="1") | {target.MEMORY: CpuSet([0])}
    for cgroup in (1, 2):
        host = Host(ALL, ALL, CpuSet([0, 1]), cgroup)
        steps = plan.make({}, state(has, baseline=baseline), host)
        assert {change.target: change.desired for change in steps.changes()} == {
            v(0): ALL,
            v(1): ALL,
            target.MEMORY: CpuSet([1]),
        }
        assert steps.steps[-1] == plan.KeepBaseline(baseline, {})
        assert not steps.unusable


def test_memory_whose_baseline_has_no_existing_node_may_be_on_any_node():
    baseline = {target.MEMORY: CpuSet([3])}
    has = {target.MEMORY: CpuSet([0])}
    (change, _note) = plan.make({}, state(has, baseline=baseline), HOST).steps
    assert change.desired == CpuSet([0, 1])


def test_cpus_that_a_group_above_took_away_are_waited_for():
    desired, has = v_pins(v0="2-3", v1="3"), v_pins(v0="2-3", v1="3")
    for version, set_now in ((1, v_pins(v0="2")), (2, {})):
        host = Host(ALL, ALL).of_groups(version, {Path("/m"): CpuSet([0, 1, 2])})
        steps = plan.make(desired, state(has, v_pins(v0="2", v1="0-2")), host)
        assert {each.target: each.desired for each in steps.changes()} == set_now
        assert steps.unusable == v_pins(v0="3", v1="3")
        assert steps.describe_unusable() == "CPU 3 of vCPU 0, CPU 3 of vCPU 1"


def test_goals_without_an_observed_value_are_unobserved():
    goals = v_pins(v0="1", v1="2") | {target.EMULATOR: CpuSet([1]), target.MEMORY: CpuSet([0])}
    observed = {
        v(0): Reading.of(CpuSet([1])),
        target.EMULATOR: Reading.of(CpuSet([1]), by_kernel=False),
        target.MEMORY: Reading.of(CpuSet([0]), by_kernel=False),
        # Nothing is desired of it.
        target.QUOTA: Reading.of(target.NO_QUOTA, by_kernel=False),
    }
    assert plan.unobserved(goals, observed) == (target.EMULATOR, target.MEMORY)
    assert plan.unobserved({}, observed) == ()
