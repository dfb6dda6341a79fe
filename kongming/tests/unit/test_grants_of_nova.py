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

"""What Nova grants each kind of guest, and which requests are within that grant."""

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from kongming import exception
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import (
    EMULATOR,
    MEMORY,
    QUOTA,
    SHARES,
    Aspect,
    Quota,
    iothread,
    vcpu,
)
from kongming.executor.placing import guard
from kongming.host.rules import Rules
from kongming.hypervisor import definition
from kongming.tests import domains
from kongming.tests.domains import HOST, RULES

PLAIN = {"plain", "plain-anywhere", "plain-migrated", "file-backed"}
IOTHREAD = iothread(1)


@pytest.mark.parametrize("name", domains.NAMES)
def test_a_guest_has_a_grant_if_nova_gave_it_a_numa_topology(name):
    read = definition.parse(domains.xml(name), HOST)
    assert (read.grant is None) == (name in PLAIN)
    assert read.nova
    assert read.project_id == "b3c4"


@pytest.mark.parametrize("name", sorted({*domains.NAMES} - PLAIN))
def test_a_grant_covers_every_part_and_the_memory(name):
    root, grant = ET.fromstring(domains.xml(name)), domains.grant(name)
    numbers = range(int(root.findtext("vcpu")))
    assert grant.cpus.keys() == {*map(vcpu, numbers), EMULATOR, IOTHREAD}
    assert grant.cells.keys() == set(numbers)
    assert grant.nodes
    assert grant.cpus[IOTHREAD] == grant.cpus[EMULATOR]


@pytest.mark.parametrize(
    ("name", "pins", "emulator", "dedicated", "cells", "nodes"),
    [
        ("large-pages", ["0-3"] * 2, "0-3", "", [0, 0], "0"),
        ("large-pages-anywhere", ["0-7"] * 2, "0-7", "", [0, 0], "0"),
        ("large-pages-migrated", ["2-3"] * 2, "2-3", "", [0, 0], "0"),
        (
            "two-cells",
            ["0-3", "0-3", "8-11", "8-11"],
            "0-3,8-11",
            "",
            [0, 0, 1, 1],
            "0-1",
        ),
        ("dedicated", ["6", "5", "4"], "4-6", "0-2", [0, 0, 0], "0"),
        ("dedicated-migrated", ["6", "5", "7"], "5-7", "0-2", [0, 0, 0], "0"),
        ("dedicated-resized", ["12", "15", "14"], "12", "0-2", [0, 0, 0], "1"),
        (
            "dedicated-two-cells",
            ["6", "5", "12", "15"],
            "5-6,12,15",
            "0-3",
            [0, 0, 1, 1],
            "0-1",
        ),
        ("mixed", ["6", "5", "0-3", "0-3"], "0-3,5-6", "0-1", [0, 0, 0, 0], "0"),
        (
            "mixed-two-cells",
            ["6", "0-3", "12", "8-11"],
            "0-3,6,8-12",
            "0,2",
            [0, 0, 1, 1],
            "0-1",
        ),
        (
            "mixed-two-cells-migrated",
            ["6", "2-3", "15", "10-11"],
            "2-3,6,10-11,15",
            "0,2",
            [0, 0, 1, 1],
            "0-1",
        ),
        ("realtime", ["6", "5", "4"], "6", "0-2", [0, 0, 0], "0"),
        ("mixed-realtime", ["0-3", "6", "5"], "0-3", "1-2", [0, 0, 0], "0"),
        ("emulator-share", ["6", "5"], "0-3,8-11", "0-1", [0, 0], "0"),
        ("emulator-isolate", ["6", "5"], "4", "0-1", [0, 0], "0"),
    ],
)
def test_the_grant_of_each_kind(name, pins, emulator, dedicated, cells, nodes):
    grant = domains.grant(name)
    assert [str(grant.vcpus[number]) for number in range(len(pins))] == pins
    assert str(grant.cpus[EMULATOR]) == emulator
    assert [grant.cells[number] for number in range(len(pins))] == cells
    assert str(grant.nodes) == nodes
    assert str(CpuSet(grant.dedicated(RULES.dedicated_cpus))) == dedicated
    realtime = "1-2" if "realtime" in name or name == "dedicated-resized" else ""
    assert str(grant.realtime) == realtime


def test_the_grant_of_a_guest_is_its_cpus_and_the_nodes_of_its_memory():
    grant = domains.grant("dedicated-two-cells")
    assert grant.values() == {**grant.cpus, MEMORY: CpuSet([0, 1])}
    assert replace(grant, nodes=CpuSet()).values() == grant.cpus


@pytest.mark.parametrize("name", sorted({*domains.NAMES} - PLAIN))
def test_without_novas_configuration_the_same_cpus_are_known_as_dedicated(name):
    grant = domains.grant(name)
    assert grant.dedicated(CpuSet()) == grant.dedicated(RULES.dedicated_cpus)


def check(name, requested, rules=RULES):
    """Have the guard judge a request for a guest that runs as Nova started it."""
    read = definition.parse(domains.xml(name), HOST)
    values = {
        what: CpuSet.parse(value) if isinstance(value, str) else value
        for what, value in requested.items()
    }
    guard.check_guest(read, rules)
    guard.check_request(values, read, HOST, rules)


ACROSS = Rules(
    shared_cpus=RULES.shared_cpus, dedicated_cpus=RULES.dedicated_cpus, numa_across_cells=True
)


@pytest.mark.parametrize(
    ("name", "requested"),
    [
        ("plain", {vcpu(0): "9", EMULATOR: "2", MEMORY: "1"}),
        ("plain-anywhere", {vcpu(0): "9", EMULATOR: "2", MEMORY: "1"}),
        ("file-backed", {vcpu(0): "9", EMULATOR: "2", MEMORY: "1"}),
        ("large-pages", {vcpu(0): "0", vcpu(1): "1-3", EMULATOR: "2"}),
        ("large-pages", {EMULATOR: "11", IOTHREAD: "8-9"}),
        ("large-pages", {SHARES: 200, QUOTA: Quota(50_000)}),
        ("two-cells", {vcpu(0): "1", vcpu(1): "0-3", vcpu(2): "9", vcpu(3): "8,11"}),
        ("dedicated", {vcpu(0): "4", vcpu(1): "6", vcpu(2): "5"}),
        ("dedicated", {EMULATOR: "5", IOTHREAD: "0"}),
        ("dedicated-two-cells", {vcpu(0): "5", vcpu(1): "6", vcpu(2): "15", vcpu(3): "12"}),
        ("mixed", {vcpu(0): "5", vcpu(1): "6", vcpu(2): "0", vcpu(3): "1-2"}),
        ("mixed", {EMULATOR: "6", IOTHREAD: "11"}),
        ("mixed-two-cells", {vcpu(1): "3", vcpu(3): "8", EMULATOR: "12"}),
        ("realtime", {vcpu(1): "4", vcpu(2): "5"}),
        ("realtime", {vcpu(0): "5", vcpu(1): "6", EMULATOR: "5", IOTHREAD: "0-3"}),
        ("mixed-realtime", {vcpu(0): "1", vcpu(1): "5", vcpu(2): "6", EMULATOR: "0"}),
        ("emulator-share", {EMULATOR: "9", IOTHREAD: "5"}),
        ("emulator-isolate", {EMULATOR: "4-6", IOTHREAD: "0"}),
        ("emulator-isolate", {vcpu(0): "5", vcpu(1): "6"}),
    ],
)
def test_a_guest_may_have_any_cpus_within_its_grant(name, requested):
    check(name, requested)


@pytest.mark.parametrize(
    ("name", "requested", "reason", "given"),
    [
        ("large-pages", {vcpu(0): "8"}, "outside_grant", "vCPU 0 the CPUs 0-3"),
        ("large-pages", {vcpu(0): "4"}, "outside_grant", "vCPU 0 the CPUs 0-3"),
        ("large-pages", {EMULATOR: "12"}, "outside_grant", "emulator the CPUs 0-3"),
        ("large-pages", {MEMORY: "1"}, "numa_memory", "node 0"),
        ("two-cells", {vcpu(1): "8"}, "outside_grant", "vCPU 1 the CPUs 0-3"),
        ("two-cells", {vcpu(2): "3,8"}, "outside_grant", "vCPU 2 the CPUs 8-11"),
        ("two-cells", {MEMORY: "0-1"}, "numa_memory", "node 0-1"),
        ("dedicated", {vcpu(0): "7"}, "outside_grant", "vCPU 0 the CPU 6"),
        ("dedicated", {vcpu(0): "0"}, "outside_grant", "vCPU 0 the CPU 6"),
        ("dedicated", {vcpu(0): "5"}, "dedicated_cpus", "vCPU 1 the CPU 5"),
        ("dedicated", {vcpu(0): "4-6"}, "dedicated_cpus", "it the CPU 6"),
        ("dedicated", {EMULATOR: "7"}, "outside_grant", "emulator the CPUs 4-6"),
        ("dedicated", {MEMORY: "0"}, "numa_memory", "node 0"),
        ("dedicated-two-cells", {vcpu(0): "12", vcpu(2): "6"}, "across_cells", "vCPU 0 the CPU 6"),
        ("mixed", {vcpu(2): "6"}, "outside_grant", "vCPU 2 the CPUs 0-3"),
        ("mixed", {vcpu(0): "0"}, "outside_grant", "vCPU 0 the CPU 6"),
        ("mixed", {vcpu(2): "8"}, "outside_grant", "vCPU 2 the CPUs 0-3"),
        ("mixed-two-cells", {vcpu(1): "8"}, "outside_grant", "vCPU 1 the CPUs 0-3"),
        ("mixed-two-cells", {vcpu(0): "12", vcpu(2): "6"}, "across_cells", "vCPU 0 the CPU 6"),
        ("realtime", {EMULATOR: "5"}, "realtime_cpu", "emulator the CPUs 6"),
        ("realtime", {IOTHREAD: "4"}, "realtime_cpu", "iothread 1 the CPUs 6"),
        ("realtime", {vcpu(0): "5", vcpu(1): "6"}, "realtime_cpu", "emulator the CPUs 6"),
        (
            "realtime",
            {vcpu(0): "5", vcpu(1): "6", EMULATOR: "5"},
            "realtime_cpu",
            "iothread 1 the CPUs 6",
        ),
        ("mixed-realtime", {EMULATOR: "6"}, "realtime_cpu", "emulator the CPUs 0-3"),
        ("mixed-realtime", {vcpu(0): "5"}, "outside_grant", "vCPU 0 the CPUs 0-3"),
        ("emulator-share", {EMULATOR: "4"}, "outside_grant", "emulator the CPUs 0-3,8-11"),
        ("emulator-isolate", {vcpu(0): "4"}, "outside_grant", "vCPU 0 the CPU 6"),
        ("emulator-isolate", {EMULATOR: "7"}, "outside_grant", "emulator the CPUs 4"),
        ("plain", {vcpu(0): "4"}, "cpu_dedicated", "4-7,12-15"),
    ],
)
def test_a_request_outside_of_the_grant_is_refused_with_the_cpus_that_nova_gave(
    name, requested, reason, given
):
    with pytest.raises(exception.Refused, match=given) as refused:
        check(name, requested)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    "rules",
    [Rules(), Rules(numa_across_cells=True), Rules(dedicated_cpus=RULES.dedicated_cpus)],
    ids=["nothing", "across", "dedicated"],
)
def test_without_cpu_shared_set_the_emulator_stays_within_the_grant(rules):
    check("dedicated", {EMULATOR: "5"}, rules)
    with pytest.raises(exception.OutsideGrant, match="emulator the CPUs 4-6; request"):
        check("dedicated", {EMULATOR: "0"}, rules)


def test_dedicated_cpus_cross_the_cells_only_where_that_is_allowed():
    swapped = {vcpu(0): "12", vcpu(2): "6"}
    for name in ("dedicated-two-cells", "mixed-two-cells"):
        check(name, swapped, ACROSS)
        with pytest.raises(exception.AcrossCells, match="its cell 0"):
            check(name, swapped)


def test_the_emulator_of_a_real_time_guest_must_make_room_for_a_permutation():
    check("realtime", {vcpu(0): "5", vcpu(1): "6", EMULATOR: "0-3", IOTHREAD: "5"})
    with pytest.raises(
        exception.RealtimeCpu, match=r"emulator can't stay on CPU 6.* in the same request"
    ):
        check("realtime", {vcpu(0): "5", vcpu(1): "6", IOTHREAD: "5"})
    # It has nothing to do with where the emulator may be.
    check("dedicated", {vcpu(0): "5", vcpu(1): "6"})


@pytest.mark.parametrize("name", domains.NAMES)
def test_the_definition_after_a_live_migration_is_read_as_the_grant_of_the_destination(name):
    """Nova writes the CPUs of ``<vcpu>``, too: they are not where the vCPUs are."""
    read = definition.parse(domains.xml(name), HOST)
    if read.grant is not None:
        assert {
            what: cpus
            for what, cpus in read.configured.items()
            if what.aspect is not Aspect.MEMORY
        } == read.grant.cpus
        assert read.configured[MEMORY] == read.grant.nodes
