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
"""Which CPUs may be restored to a control group: only those whose loss was observed."""

from pathlib import Path

import pytest

from kongming.allocation.cpuset import CpuSet
from kongming.hypervisor.lost_cpus import LostCpus

ALL = CpuSet(range(4))
MACHINE, GUEST = Path("/machine"), Path("/machine/vm")


@pytest.fixture
def lost(monkeypatch):
    written = []
    monkeypatch.setattr(
        "kongming.hypervisor.cgroup.restore", lambda folder, cpus: written.append((folder, cpus))
    )
    lost = LostCpus()
    lost.written = written
    lost.note({MACHINE: ALL, GUEST: ALL}, ALL)
    return lost


def test_cpus_that_went_offline_are_restored_outermost_first(lost):
    lost.went_offline(CpuSet([2, 3]))
    now = {MACHINE: CpuSet([0, 1]), GUEST: CpuSet([0, 1, 2])}
    lost.note(now, ALL)
    assert lost.restorable(now, ALL) == ALL
    assert lost.restore(now, CpuSet([2, 3]))
    assert lost.written == [(MACHINE, {2, 3}), (GUEST, {3})]
    assert not lost.restore({MACHINE: ALL, GUEST: ALL}, ALL)


def test_cpus_that_an_operator_removed_are_not_restored(lost):
    now = {MACHINE: CpuSet([0]), GUEST: CpuSet([0])}
    lost.note(now, ALL)
    # It went offline when the group did not have it any more.
    lost.went_offline(CpuSet([1]))
    assert lost.restorable(now, ALL) == {0}
    assert not lost.restore(now, ALL)
    assert lost.written == []


def test_a_group_that_was_narrow_before_keeps_other_cpus_out(lost):
    lost.note({MACHINE: CpuSet([0, 1])}, ALL)
    lost.went_offline(CpuSet([1, 2]))
    now = {MACHINE: CpuSet([0]), GUEST: CpuSet([0, 3])}
    lost.note(now, ALL)
    assert lost.restorable(now, ALL) == {0, 1}
    lost.restore(now, CpuSet([1, 2]))
    assert lost.written == [(MACHINE, {1}), (GUEST, {1, 2})]


def test_cpus_that_another_program_restored_are_no_longer_lost(lost):
    lost.went_offline(CpuSet([3]))
    lost.note({MACHINE: CpuSet([0, 1, 2])}, ALL)
    lost.note({MACHINE: ALL}, ALL)
    lost.note({MACHINE: CpuSet([0, 1, 2])}, ALL)
    assert lost.restorable({MACHINE: CpuSet([0, 1, 2])}, ALL) == {0, 1, 2}


def test_groups_that_are_gone_are_forgotten_once_there_are_many(lost, tmp_path):
    for number in range(2_100):
        lost.note({tmp_path / str(number): ALL}, ALL)
    lost.note({tmp_path: ALL}, ALL)
    lost.went_offline(CpuSet([3]))
    assert lost.restorable({tmp_path: CpuSet([0])}, ALL) == {0, 3}
    assert lost.restorable({tmp_path / "1": CpuSet([0])}, ALL) == {0}


@pytest.mark.parametrize("late_event", [False, True])
def test_a_cpu_that_went_offline_right_before_the_groups_were_read_is_lost(lost, late_event):
    now = {MACHINE: CpuSet([0, 1, 2]), GUEST: CpuSet([0, 1])}
    lost.note(now, CpuSet([0, 1, 2]))
    if late_event:
        lost.went_offline(CpuSet([3]))
    # CPUs that are online were removed by an operator.
    assert lost.restorable(now, ALL) == {0, 1, 3}
    lost.note(now, ALL)
    assert lost.restorable(now, ALL) == {0, 1, 3}


def test_a_domain_that_starts_meanwhile_gets_the_lost_cpus_of_its_parent_group(lost):
    lost.went_offline(CpuSet([2, 3]))
    left, new = CpuSet([0, 1]), MACHINE / "new"
    now = {MACHINE: left, new: left}
    lost.note(now, left)
    assert lost.restorable(now, ALL) == ALL
    assert lost.restore(now, CpuSet([3]))
    assert lost.written == [(MACHINE, {3}), (new, {3})]


def test_a_domain_that_starts_after_its_parent_group_was_restored_has_lost_no_cpus(lost):
    lost.went_offline(CpuSet([3]))
    lost.note({MACHINE: ALL, MACHINE / "new": CpuSet([0, 1, 2])}, ALL)
    assert lost.restorable({MACHINE / "new": CpuSet([0, 1, 2])}, ALL) == {0, 1, 2}


@pytest.mark.parametrize(
    ("between", "has"), [([MACHINE / "tenant"], [0, 1]), ([], [0])], ids=["above", "narrower"]
)
def test_a_group_that_an_operator_creates_meanwhile_stays_as_created(lost, between, has):
    lost.went_offline(CpuSet([2, 3]))
    left = CpuSet([0, 1])
    made = [*between, MACHINE / "tenant/new"][0]
    now = {MACHINE: left, **{each: CpuSet(has) for each in [*between, MACHINE / "tenant/new"]}}
    lost.note(now, left)
    assert 3 not in lost.restorable({made: CpuSet(has)}, ALL)


def test_a_known_domain_has_lost_only_cpus_that_it_had(lost):
    lost.note({MACHINE: ALL, GUEST: CpuSet([0, 1])}, ALL)
    lost.went_offline(CpuSet([3]))
    now = {MACHINE: CpuSet([0, 1]), GUEST: CpuSet([0, 1])}
    lost.note(now, CpuSet([0, 1, 2]))
    assert lost.restorable({GUEST: CpuSet([0, 1])}, ALL) == {0, 1}


def test_restored_cpus_can_be_lost_again_and_are_logged(lost, caplog):
    caplog.set_level("INFO")
    left = CpuSet([0, 1, 2])
    lost.went_offline(CpuSet([3]))
    lost.note({MACHINE: left}, left)
    lost.restore({MACHINE: left}, CpuSet([3]))
    assert caplog.messages == ["CPU 3 was restored in /machine: it had been offline"]
    # The group was not read since.
    lost.went_offline(ALL)
    assert lost.restorable({MACHINE: CpuSet()}, ALL) == ALL


def test_groups_of_a_full_host_are_not_forgotten(lost):
    for number in range(1_990):
        lost.note({MACHINE / str(number): ALL}, ALL)
    lost.went_offline(CpuSet([3]))
    assert lost.restorable({MACHINE / "1": CpuSet([0])}, ALL) == {0, 3}
