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

"""What a guest with a NUMA topology may be given: only what Nova gave it."""

from dataclasses import replace

import pytest

from kongming import exception
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import EMULATOR, MEMORY, QUOTA, SHARES, Quota, iothread, vcpu
from kongming.executor.placing import grants
from kongming.host.grant import Grant
from kongming.host.rules import Rules
from kongming.hypervisor import definition
from kongming.hypervisor.host import Host
from kongming.tests.unit.granted_domains import NOVA, domain

HOST = Host(CpuSet(range(16)), CpuSet(range(16)), CpuSet([0, 1]))
NO_RULES = Rules()


FLOATING = domain(["4-7", "4-7"], "4-7", ["0-1"], iothread="4-7")
DEDICATED = domain(["4", "6", "5"], "4-6", ["0-2"])
MIXED = domain(["4", "5", "8-11", "8-11"], "4-5,8-11", ["0-3"], iothread="4-5,8-11")
TWO_CELLS = domain(["4", "5", "12", "13"], "4-5,12-13", ["0-1", "2-3"])
REALTIME = domain(
    ["4", "5", "6"],
    "4",
    ["0-2"],
    iothread="4",
    scheduled="<vcpusched vcpus='1-2' scheduler='fifo' priority='1'/>",
)


def grant(xml):
    return definition.parse(xml, HOST).grant


def check(requested, xml, rules=NO_RULES):
    pins = {what: CpuSet.parse(cpus) for what, cpus in requested.items()}
    grants.check(pins, grant(xml), rules)


def test_the_grant_is_read_from_the_persistent_definition():
    narrowed = FLOATING.replace("vcpu='1' cpuset='4-7'", "vcpu='1' cpuset='5'")
    read = definition.parse(narrowed, HOST, lambda: FLOATING)
    assert read.grant == Grant(
        {each: CpuSet.parse("4-7") for each in (vcpu(0), vcpu(1), EMULATOR, iothread(1))},
        {0: 0, 1: 0},
        CpuSet(),
        CpuSet([0]),
    )
    assert read.configured[vcpu(1)] == {5}


def test_a_guest_without_a_numa_topology_has_no_grant_and_is_not_read_twice():
    plain = f"<domain>{NOVA}<vcpu cpuset='0-3'>2</vcpu></domain>"
    assert definition.parse(plain, HOST, None).grant is None
    assert definition.parse(plain, HOST, lambda: pytest.fail("asked")).grant is None


def test_a_changed_value_returns_to_the_grant_and_not_to_the_recorded_baseline():
    note = definition.baseline_xml({vcpu(0): CpuSet([4]), SHARES: 100})
    live = FLOATING.replace(
        "</metadata>", note.replace("<baseline", f"<baseline xmlns='{definition.BASELINE_URI}'")
    ).replace("<vcpu placement", "</metadata><vcpu placement")
    assert definition.parse(live, HOST, lambda: FLOATING).baseline == {
        vcpu(0): CpuSet.parse("4-7"),
        SHARES: 100,
    }


def test_cells_and_real_time_are_read():
    assert grant(TWO_CELLS).cells == {0: 0, 1: 0, 2: 1, 3: 1}
    assert grant(TWO_CELLS).nodes == {0, 1}
    assert grant(REALTIME).realtime == {1, 2}
    idle = REALTIME.replace("scheduler='fifo'", "scheduler='idle'")
    assert grant(idle).realtime == CpuSet()


@pytest.mark.parametrize("xml", [FLOATING, DEDICATED, MIXED, TWO_CELLS, REALTIME])
def test_a_grant_is_the_same_after_its_json_form(xml):
    read = grant(xml)
    assert Grant.from_json(read.to_json()) == read


@pytest.mark.parametrize(
    ("xml", "pool", "dedicated"),
    [
        (FLOATING, "", {}),
        (DEDICATED, "", {0: 4, 1: 6, 2: 5}),
        (MIXED, "", {0: 4, 1: 5}),
        (MIXED, "4-7", {0: 4, 1: 5}),
        (MIXED, "5", {1: 5}),
        (domain(["4", "4"], "4", ["0-1"]), "", {}),
        (domain(["4", "4-5"], "4-5", ["0-1"]), "", {}),
    ],
)
def test_a_dedicated_cpu_belongs_to_a_single_vcpu(xml, pool, dedicated):
    assert grant(xml).dedicated(CpuSet.parse(pool) if pool else CpuSet()) == dedicated


@pytest.mark.parametrize(
    ("given", "has", "floats"),
    [("4-5", "4-5", True), ("4-7", "4-5", False), ("4", "4", False), ("4-5", "4", False)],
)
def test_a_vcpu_floats_if_it_has_all_of_several_cpus(given, has, floats):
    assert grant(domain([given], given, ["0"])).floats(0, CpuSet.parse(has)) is floats


SHARED = Rules(shared_cpus=CpuSet([0, 1]))
ACROSS = Rules(numa_across_cells=True)


@pytest.mark.parametrize(
    ("xml", "requested", "rules"),
    [
        (FLOATING, {vcpu(0): "4"}, NO_RULES),
        (FLOATING, {vcpu(0): "4-7", vcpu(1): "5,7"}, NO_RULES),
        (FLOATING, {EMULATOR: "7", iothread(1): "4-5"}, NO_RULES),
        (FLOATING, {EMULATOR: "0,7", iothread(1): "1"}, SHARED),
        (DEDICATED, {vcpu(0): "5", vcpu(1): "4", vcpu(2): "6"}, NO_RULES),
        (DEDICATED, {vcpu(0): "6", vcpu(1): "4"}, Rules(dedicated_cpus=CpuSet([4, 6]))),
        (DEDICATED, {vcpu(1): "6"}, NO_RULES),
        (DEDICATED, {EMULATOR: "4", iothread(1): "5"}, NO_RULES),
        (MIXED, {vcpu(0): "5", vcpu(1): "4", vcpu(2): "8", vcpu(3): "9-11"}, NO_RULES),
        (MIXED, {iothread(1): "4,11"}, NO_RULES),
        (TWO_CELLS, {vcpu(2): "13", vcpu(3): "12"}, NO_RULES),
        (TWO_CELLS, {vcpu(0): "12", vcpu(2): "4"}, ACROSS),
        (REALTIME, {vcpu(1): "6", vcpu(2): "5"}, NO_RULES),
        (REALTIME, {EMULATOR: "0"}, SHARED),
    ],
)
def test_a_request_within_the_grant_is_accepted(xml, requested, rules):
    check(requested, xml, rules)


@pytest.mark.parametrize(
    ("xml", "requested", "rules", "refusal", "expected"),
    [
        (
            FLOATING,
            {vcpu(1): "7-8"},
            NO_RULES,
            exception.OutsideGrant,
            "CPU 8 .*vCPU 1 the CPUs 4-7",
        ),
        (FLOATING, {vcpu(0): "0"}, SHARED, exception.OutsideGrant, "vCPU 0 the CPUs 4-7"),
        (
            FLOATING,
            {EMULATOR: "3-4"},
            NO_RULES,
            exception.OutsideGrant,
            "CPU 3 .*emulator the CPUs 4-7;",
        ),
        (FLOATING, {EMULATOR: "2"}, SHARED, exception.OutsideGrant, "may run on 0-1,4-7"),
        (
            FLOATING,
            {iothread(1): "8"},
            NO_RULES,
            exception.OutsideGrant,
            "iothread 1 the CPUs 4-7",
        ),
        (
            DEDICATED,
            {iothread(1): "7"},
            NO_RULES,
            exception.OutsideGrant,
            "iothread 1 the CPUs 4-6",
        ),
        (DEDICATED, {vcpu(0): "7"}, NO_RULES, exception.OutsideGrant, "dedicated CPUs 4-6.*CPU 4"),
        (DEDICATED, {vcpu(0): "4-5"}, NO_RULES, exception.DedicatedCpus, "can't have 4-5.*CPU 4"),
        (DEDICATED, {vcpu(0): "5"}, NO_RULES, exception.DedicatedCpus, "vCPUs 0 and 2.*CPU 5"),
        (DEDICATED, {vcpu(0): "6", vcpu(1): "6"}, NO_RULES, exception.DedicatedCpus, "0 and 1"),
        (MIXED, {vcpu(2): "4"}, NO_RULES, exception.OutsideGrant, "CPU 4 .*vCPU 2 the CPUs 8-11"),
        (MIXED, {vcpu(0): "8"}, NO_RULES, exception.OutsideGrant, "CPU 8 .*dedicated CPUs 4-5"),
        (
            TWO_CELLS,
            {vcpu(0): "12", vcpu(2): "4"},
            NO_RULES,
            exception.AcrossCells,
            "cell 1.*cell 0",
        ),
        (TWO_CELLS, {vcpu(0): "12"}, ACROSS, exception.DedicatedCpus, "0 and 2"),
        (
            REALTIME,
            {EMULATOR: "5"},
            NO_RULES,
            exception.RealtimeCpu,
            "emulator can't run on CPU 5: .* has it.*emulator the CPUs 4$",
        ),
        (REALTIME, {iothread(1): "6"}, NO_RULES, exception.RealtimeCpu, "iothread 1 the CPUs 4"),
        (
            REALTIME,
            {vcpu(0): "5", vcpu(1): "4", EMULATOR: "4"},
            NO_RULES,
            exception.RealtimeCpu,
            "CPU 4",
        ),
        (
            domain(
                ["4-5", "4-5"],
                "4-6",
                ["0-1"],
                scheduled="<vcpusched vcpus='1' scheduler='rr' priority='1'/>",
            ),
            {EMULATOR: "5-6"},
            NO_RULES,
            exception.RealtimeCpu,
            "CPU 5",
        ),
    ],
)
def test_a_request_outside_of_the_grant_is_refused_with_the_cpus_that_nova_gave(
    xml, requested, rules, refusal, expected
):
    with pytest.raises(refusal, match=expected):
        check(requested, xml, rules)


def test_memory_stays_where_nova_bound_it():
    with pytest.raises(exception.NumaMemory, match="node 0-1"):
        grants.check({MEMORY: CpuSet([0])}, grant(TWO_CELLS), NO_RULES)
    with pytest.raises(exception.NumaMemory, match="where Nova bound it; request"):
        grants.check({MEMORY: CpuSet([0])}, replace(grant(TWO_CELLS), nodes=CpuSet()), NO_RULES)


def test_cpu_time_is_no_placement():
    grants.check({SHARES: 200, QUOTA: Quota(50_000)}, grant(DEDICATED), NO_RULES)


def test_a_part_that_nova_chose_no_cpus_for_is_free_unless_it_is_an_iothread():
    xml = FLOATING.replace("<vcpupin vcpu='1' cpuset='4-7'/>", "").replace(
        "<iothreadpin iothread='1' cpuset='4-7'/>", ""
    )
    check({vcpu(1): "15"}, xml)
    with pytest.raises(exception.OutsideGrant, match="iothread 1 the CPUs 4-7"):
        check({iothread(1): "8"}, xml)
