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

"""The guard: nothing forbidden gets through, whatever it looks like."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
import pytest

from kongming import exception
from kongming.allocation import metadata, target
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import NO_QUOTA
from kongming.executor.placing import guard
from kongming.host.grant import Grant
from kongming.host.rules import NumaGuests, Rules
from kongming.hypervisor.definition import Definition
from kongming.hypervisor.host import Host

HOST = Host(CpuSet(range(8)), CpuSet(range(7)), CpuSet([0, 1]), cgroup=2)
NO_RULES = Rules()
ALL = CpuSet(range(8))

sets = st.frozensets(st.integers(0, 9)).map(CpuSet)
some = st.frozensets(st.integers(0, 9), min_size=1).map(CpuSet)


def definition(**values):
    parts = {
        "nova": True,
        "project_id": "p1",
        "grant": None,
        "vcpus": 4,
        "iothreads": CpuSet([1]),
        "configured": {},
        "memory_kib": 1 << 20,
        "explicit": frozenset(),
        "memory_mode": None,
        "baseline": {},
    }
    return Definition(**parts | values)


@given(some, st.none() | sets, sets, sets)
def test_exactly_the_permitted_cpus_pass(requested, allowed, reserved, dedicated):
    rules = Rules(allowed_cpus=allowed, reserved_cpus=reserved, dedicated_cpus=dedicated)
    ours = set(range(8)) - reserved - dedicated
    if allowed is not None:
        ours &= allowed
    try:
        guard.check_cpus(requested, HOST, rules)
    except exception.Refused:
        assert requested - ours
    else:
        assert requested <= ours


#: What a tenant may write: anything, but more often something like a request.
values = st.text(max_size=40) | st.text(alphabet="0123456789-,;:^ ", max_size=40)
keys = st.sampled_from([*metadata.KEYS, "kongming-vcpu-pinning "])


@given(st.dictionaries(keys, values, max_size=4), sets)
def test_no_value_reaches_a_reserved_cpu(written, reserved):
    rules = Rules(reserved_cpus=reserved)
    try:
        requested = metadata.parse(written).resolve(4, CpuSet([1]))
        guard.check_request(requested, definition(), HOST, rules)
    except exception.Refused:
        return
    assert not guard.requested_cpus(requested) & reserved


@given(st.sampled_from(["{}", "0:{}", "{},0", "^0,0-{},{}", " {} ", "0{}", "1-3:{}"]), some)
def test_no_spelling_reaches_a_reserved_cpu(form, reserved):
    for cpu in reserved:
        try:
            requested = metadata.parse(
                {"kongming-vcpu-pinning": form.format(*[cpu] * form.count("{}"))}
            ).resolve(4, CpuSet())
            guard.check_request(requested, definition(), HOST, Rules(reserved_cpus=reserved))
        except exception.Refused:
            continue
        assert cpu not in guard.requested_cpus(requested)


def test_the_first_rule_that_is_broken_is_named_with_its_option():
    rules = Rules(
        allowed_cpus=CpuSet(range(6)), reserved_cpus=CpuSet([0]), dedicated_cpus=CpuSet([1, 2])
    )
    for requested, error, expected in [
        ({8, 9, 1}, exception.CpuUnknown, "CPU 8-9 does not exist.* 0-7"),
        ({0, 1}, exception.CpuReserved, r"CPU 0 is reserved \(\[guard\] reserved_cpus is 0"),
        ({1, 3}, exception.CpuDedicated, r"CPU 1 is for guests.*cpu_dedicated_set is 1-2"),
        ({3, 6}, exception.CpuNotAllowed, r"CPU 6 is not allowed.*allowed_cpus is 0-5"),
    ]:
        with pytest.raises(error, match=expected):
            guard.check_cpus(CpuSet(requested), HOST, rules)
    with pytest.raises(exception.CpuOffline, match="CPU 7 is offline: online are 0-6"):
        guard.check_usable(CpuSet([6, 7]), HOST)


def test_nodes():
    guard.check_nodes(CpuSet([0, 1]), HOST, NO_RULES)
    with pytest.raises(exception.NodeUnknown, match="node 2 does not exist"):
        guard.check_nodes(CpuSet([1, 2]), HOST, NO_RULES)
    with pytest.raises(exception.NodeNotAllowed, match="node 1 is not allowed"):
        guard.check_nodes(CpuSet([0, 1]), HOST, Rules(allowed_nodes=CpuSet([0])))


@pytest.mark.parametrize(
    ("cgroup", "shares", "fits"),
    [
        (1, 2, True),
        (1, 1, False),
        (1, 262_144, True),
        (1, 262_145, False),
        (None, 1, True),
        (2, 2, True),
        (2, 1, False),
        (2, 10_000, True),
        (2, 10_001, False),
    ],
)
def test_shares_are_held_against_the_hosts_cgroup_version(cgroup, shares, fits):
    host = Host(CpuSet(range(8)), CpuSet(range(8)), cgroup=cgroup)
    requested = {target.SHARES: shares}
    if fits:
        guard.check_request(requested, definition(), host, NO_RULES)
    else:
        most = {1: 262_144, 2: 10_000}[cgroup]
        expected = f"cgroup v{cgroup}, which accepts 2 to {most}$"
        with pytest.raises(exception.SharesOutOfRange, match=expected):
            guard.check_request(requested, definition(), host, NO_RULES)


@pytest.mark.parametrize("mode", [None, "restrictive", "strict", "preferred", "interleave"])
def test_memory_that_libvirt_does_not_let_move_is_refused(mode):
    requested = {target.MEMORY: CpuSet([1])}
    if mode in (None, "restrictive"):
        guard.check_request(requested, definition(memory_mode=mode), HOST, NO_RULES)
    else:
        with pytest.raises(exception.MemoryFixed, match=mode):
            guard.check_request(requested, definition(memory_mode=mode), HOST, NO_RULES)


@pytest.mark.parametrize(
    ("nova", "granted", "projects", "refusal"),
    [
        (True, None, [], None),
        (True, None, ["p0", "p1"], None),
        (False, None, [], exception.NotNova),
        (False, Grant({}), [], exception.NotNova),
        (True, Grant({}), [], exception.NovaOwned),
        (True, None, ["p2"], exception.ProjectNotAllowed),
    ],
)
def test_only_guests_that_kongming_may_place_are_changed(nova, granted, projects, refusal):
    guest = definition(nova=nova, grant=granted)
    rules = Rules(allowed_projects=frozenset(projects), numa_guests=NumaGuests.REFUSE)
    if refusal is None:
        guard.check_guest(guest, rules)
    else:
        with pytest.raises(refusal):
            guard.check_guest(guest, rules)


def test_a_cpu_that_a_group_above_the_guest_lacks_is_refused_with_the_group():
    groups = {
        Path("/cgroup/machine.slice"): CpuSet(range(6)),
        Path("/cgroup/machine.slice/vm"): ALL,
    }
    narrowed = HOST.of_groups(2, groups)
    guard.check_usable(CpuSet([4, 5]), narrowed)
    expected = r"CPU 6 is not in the control group /cgroup/machine.slice, which"
    with pytest.raises(exception.CpuNotInSlice, match=expected):
        guard.check_usable(CpuSet([5, 6]), narrowed)
    # Offline comes first: no group could give it.
    with pytest.raises(exception.CpuOffline, match="CPU 7"):
        guard.check_usable(CpuSet([6, 7]), narrowed)


def test_cpus_in_gaps_between_existing_cpus_are_refused():
    host = Host(CpuSet.parse("0-3,8-11"), CpuSet.parse("0-3,8-11"))
    guard.check_cpus(CpuSet([3, 8]), host, NO_RULES)
    with pytest.raises(exception.CpuUnknown, match="CPU 5 does not exist.* are 0-3,8-11"):
        guard.check_cpus(CpuSet([3, 5]), host, NO_RULES)


def test_each_target_is_judged_by_itself_where_some_may_stay():
    requested = {
        target.vcpu(0): CpuSet([2]),
        target.vcpu(1): CpuSet([1, 2]),
        target.vcpu(2): CpuSet([1, 3]),
        target.EMULATOR: CpuSet([9]),
        target.MEMORY: CpuSet([1]),
        target.SHARES: 10_001,
        target.QUOTA: NO_QUOTA,
    }
    rules = Rules(reserved_cpus=CpuSet([1, 3]), allowed_nodes=CpuSet([0]))
    passing, refusals = guard.partition(requested, definition(), HOST, rules)
    assert passing == {target.vcpu(0): CpuSet([2]), target.QUOTA: NO_QUOTA}
    assert [type(each) for each in refusals] == [
        exception.CpuReserved,
        exception.CpuUnknown,
        exception.NodeNotAllowed,
        exception.SharesOutOfRange,
    ]
    assert "CPU 1,3 is reserved" in str(refusals[0])


def test_a_request_that_breaks_no_rule_passes_whole():
    requested = {target.vcpu(0): CpuSet([2]), target.SHARES: 100}
    assert guard.partition(requested, definition(), HOST, NO_RULES) == (requested, [])


GRANT = Grant(
    {target.vcpu(0): CpuSet([4]), target.vcpu(1): CpuSet([5]), target.EMULATOR: CpuSet([4, 5])}
)
OWN = Rules(dedicated_cpus=CpuSet(range(4, 8)), reserved_cpus=CpuSet([0]))


def test_a_guest_may_have_the_dedicated_cpus_that_nova_gave_it_and_no_others():
    guest = definition(grant=GRANT)
    guard.check_guest(guest, OWN)
    swapped = {target.vcpu(0): CpuSet([5]), target.vcpu(1): CpuSet([4])}
    guard.check_request(swapped, guest, HOST, OWN)
    with pytest.raises(exception.OutsideGrant, match="CPU 6"):
        guard.check_request({target.vcpu(0): CpuSet([6])}, guest, HOST, OWN)
    with pytest.raises(exception.CpuDedicated, match="CPU 4"):
        guard.check_request({target.vcpu(0): CpuSet([4])}, definition(), HOST, OWN)
    with pytest.raises(exception.OutsideGrant, match="CPU 3"):
        guard.check_request({target.EMULATOR: CpuSet([3])}, guest, HOST, OWN)


def test_the_cpus_of_a_guest_with_a_numa_topology_stay_or_go_together():
    guest = definition(grant=GRANT)
    swapped = {target.vcpu(0): CpuSet([5]), target.vcpu(1): CpuSet([4]), target.SHARES: 10_001}
    passing, refusals = guard.partition(swapped, guest, HOST, OWN)
    assert passing == {target.vcpu(0): CpuSet([5]), target.vcpu(1): CpuSet([4])}
    assert [type(each) for each in refusals] == [exception.SharesOutOfRange]
    outside = {target.vcpu(0): CpuSet([4]), target.EMULATOR: CpuSet([3]), target.SHARES: 200}
    passing, refusals = guard.partition(outside, guest, HOST, OWN)
    assert passing == {target.SHARES: 200}
    assert [type(each) for each in refusals] == [exception.OutsideGrant]
