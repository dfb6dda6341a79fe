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

"""Reading the live definition of a domain."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
import pytest

from kongming.allocation import target
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import NO_QUOTA, Aspect, Quota, Target
from kongming.hypervisor import definition
from kongming.hypervisor.host import Host

NOVA = (
    '<nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/{}">'
    "<nova:name>s1</nova:name></nova:instance>"
)
HOST = Host(CpuSet(range(8)), CpuSet(range(8)), CpuSet([0, 1]))
ALL = CpuSet(range(8))
NOVA_NOW = NOVA.format("1.1")
OTHER = '<app:x xmlns:app="http://example.org/nova/1.1"/>'


def xml(*, metadata=NOVA_NOW, vcpu="<vcpu placement='static'>4</vcpu>", more=""):
    return f"<domain type='kvm'><metadata>{metadata}</metadata>{vcpu}{more}</domain>"


def parse(**parts):
    return definition.parse(xml(**parts), HOST)


@pytest.mark.parametrize(
    ("metadata", "nova"),
    [(NOVA.format("1.0"), True), (NOVA.format("1.1"), True), (OTHER, False), ("", False)],
)
def test_a_domain_of_nova_is_recognized_by_novas_element(metadata, nova):
    assert parse(metadata=metadata).nova is nova


HERE = "6f1c0c3e-0b5e-4a8e-9d0e-6a3d8a5f1b11"
THERE = "0e5d6a7b-1c2d-4e3f-8a9b-0c1d2e3f4a5b"
WRITTEN = {
    Target(Aspect.VCPU, 0): CpuSet(range(64)),
    target.EMULATOR: CpuSet([9]),
    target.SHARES: 1024,
    target.MEMORY: CpuSet([0, 1, 2]),
}


def qualified(note):
    """Return a baseline's XML in its namespace, as libvirt has it in a domain."""
    return note.replace("<baseline", f"<baseline xmlns='{definition.BASELINE_URI}'")


def noted(written_on, **parts):
    note = qualified(definition.baseline_xml(WRITTEN, "store", written_on))
    return xml(metadata=NOVA_NOW + note, **parts)


@pytest.mark.parametrize(
    ("written_on", "here", "travelled"),
    [(THERE, HERE, True), (HERE, HERE, False), ("", HERE, False), (THERE, "", False)],
)
def test_a_baseline_that_another_host_recorded_is_not_restored(written_on, here, travelled):
    host = replace(HOST, uuid=here)
    read = definition.parse(noted(written_on), host)
    assert read.has_foreign_baseline is travelled
    mine = {Target(Aspect.VCPU, 0): ALL, target.EMULATOR: ALL, target.MEMORY: CpuSet([0, 1])}
    assert read.baseline == (WRITTEN | mine if travelled else WRITTEN)
    assert definition.parse_baseline(noted(written_on), host) == read.baseline


LEFT = {target.vcpu(2): CpuSet(range(64)), target.MEMORY: CpuSet([2])}


def left(written_on, note=""):
    written = definition.baseline_xml(LEFT, host=written_on, name="released")
    named = written.replace("<released", f"<released xmlns='{definition.RELEASED_URI}'")
    return NOVA_NOW + note + named


def test_a_released_value_is_a_baseline_on_another_host_only():
    host = replace(HOST, uuid=HERE)
    here = definition.parse(xml(metadata=left(HERE)), host)
    assert (here.baseline, here.released, here.has_foreign_baseline) == ({}, LEFT, False)
    assert definition.parse_baseline(xml(metadata=left(HERE)), host) is None
    there = definition.parse(xml(metadata=left(THERE)), host)
    assert there.has_foreign_baseline
    assert there.baseline == {target.vcpu(2): ALL, target.MEMORY: CpuSet([0, 1])}
    assert definition.parse_baseline(xml(metadata=left(THERE)), host) == there.baseline


def test_among_values_placed_here_only_those_released_on_another_host_are_novas():
    note = qualified(definition.baseline_xml({target.EMULATOR: CpuSet([3])}, "store", HERE))
    read = definition.parse(xml(metadata=left(THERE, note)), replace(HOST, uuid=HERE))
    assert read.baseline[target.EMULATOR] == {3}
    assert read.baseline[target.vcpu(2)] == ALL


def test_a_guest_from_another_host_returns_to_the_cpus_that_nova_permits_here():
    given = "<vcpu cpuset='2-3'>4</vcpu>"
    read = definition.parse(noted(THERE, vcpu=given), replace(HOST, uuid=HERE))
    assert read.baseline[target.EMULATOR] == {2, 3}


NUMA = """<cputune><vcpupin vcpu='0' cpuset='{}'/><emulatorpin cpuset='2-3'/></cputune>
<cpu><numa><cell id='0' cpus='0-3' memory='4'/></numa></cpu>"""
GRANTED = {Target(Aspect.VCPU, 0): CpuSet([2, 3]), target.iothread(1): CpuSet([2, 3])}


@pytest.mark.parametrize(
    ("written_on", "pin", "widened"),
    [
        (HERE, "2", True),
        (HERE, "2-3", True),
        # It was on another host in between, and Nova gave it other CPUs when it came back.
        (HERE, "4-5", False),
        (HERE, "3-4", False),
        (THERE, "2", False),
        (THERE, "0-7", False),
    ],
)
def test_in_the_definition_of_a_numa_guest_only_narrowed_values_are_widened(
    written_on, pin, widened
):
    note = qualified(definition.baseline_xml(GRANTED | {target.SHARES: 1024}, "store", written_on))
    persistent = xml(metadata=NOVA_NOW + note, more=NUMA.format(pin))
    found = definition.parse_baseline(persistent, replace(HOST, uuid=HERE))
    vcpu = {Target(Aspect.VCPU, 0): CpuSet([2, 3])} if widened else {}
    # An iothread that it does not name has nothing to return to.
    assert found == vcpu | {target.SHARES: 1024}


def vcpus(read):
    return {
        what.number: cpus for what, cpus in read.configured.items() if what.aspect is Aspect.VCPU
    }


def test_the_project_is_that_of_novas_element():
    owner = '<nova:owner><nova:project uuid="p1">demo</nova:project></nova:owner>'
    assert parse(metadata=NOVA_NOW).project_id is None
    assert (
        parse(metadata=NOVA_NOW.replace("<nova:name>", owner + "<nova:name>")).project_id == "p1"
    )


def test_a_value_that_libvirt_has_not_is_the_whole_host():
    more = "<iothreadids><iothread id='3'/></iothreadids>"
    assert parse(more=more).configured == {
        **{target.vcpu(number): ALL for number in range(4)},
        target.EMULATOR: ALL,
        target.iothread(3): ALL,
        target.MEMORY: {0, 1},
    }


def test_iothreads_that_libvirt_numbered_itself():
    assert parse(more="<iothreads>2</iothreads>").iothreads == {1, 2}
    more = "<iothreads>1</iothreads><iothreadids><iothread id='5'/></iothreadids>"
    assert parse(more=more).iothreads == {5}
    assert parse().iothreads == set()


def test_configured_values_are_read():
    more = (
        "<iothreadids><iothread id='1'/><iothread id='2'/></iothreadids>"
        "<cputune><emulatorpin cpuset='0-1'/><iothreadpin iothread='2' cpuset='3'/></cputune>"
        "<numatune><memory mode='restrictive' nodeset='1'/></numatune>"
    )
    read = parse(more=more)
    assert read.iothreads == {1, 2}
    assert read.configured[target.EMULATOR] == {0, 1}
    assert (read.configured[target.iothread(1)], read.configured[target.iothread(2)]) == (ALL, {3})
    assert read.configured[target.MEMORY] == {1}
    assert read.memory_mode == "restrictive"
    assert parse().memory_mode is None


def test_unconfigured_vcpus_get_the_cpus_that_nova_named_for_all():
    read = parse(vcpu="<vcpu placement='static' cpuset='0-3,^2' current='1'>4</vcpu>")
    assert vcpus(read) == dict.fromkeys(range(4), CpuSet([0, 1, 3]))


@pytest.mark.parametrize("vcpu", ["", "<vcpu placement='static'/>"])
def test_a_domain_without_a_number_of_vcpus_is_invalid(vcpu):
    with pytest.raises(ValueError, match="no <vcpu> element"):
        parse(vcpu=vcpu)


@pytest.mark.parametrize(
    ("baseline", "store", "is_ours"),
    [
        ({target.SHARES: 100}, "a", True),
        ({target.SHARES: 100}, "", True),
        ({target.SHARES: 100}, "b", False),
        ({}, "a", False),
    ],
)
def test_a_guest_is_placed_by_the_store_that_its_baseline_names(baseline, store, is_ours):
    note = definition.baseline_xml(baseline, store) if baseline else ""
    assert parse(metadata=NOVA_NOW + qualified(note)).is_placed_by("a") is is_ours


def test_pins_are_read_vcpu_by_vcpu():
    more = "<cputune><shares>100</shares><vcpupin vcpu='2' cpuset='5-6'/></cputune>"
    assert vcpus(parse(more=more)) == dict.fromkeys(range(4), ALL) | {2: {5, 6}}


@pytest.mark.parametrize(
    ("more", "numa"),
    [
        ("<cpu><topology sockets='1'/></cpu>", False),
        ("<numatune><memory mode='strict' nodeset='0'/></numatune>", False),
        ("<cpu><numa><cell id='0' cpus='0-3' memory='1'/></numa></cpu>", True),
        ("<numatune><memnode cellid='0' mode='strict' nodeset='1'/></numatune>", True),
    ],
)
def test_guests_with_a_numa_topology_have_a_grant(more, numa):
    assert (parse(more=more).grant is not None) is numa


sets = st.frozensets(st.integers(0, 7), min_size=1).map(CpuSet)
quotas = st.just(NO_QUOTA) | st.builds(Quota, st.integers(1000, 10**6), st.integers(1000, 10**6))
baselines = st.fixed_dictionaries(
    {},
    optional={
        target.vcpu(0): sets,
        target.vcpu(12): sets,
        target.EMULATOR: sets,
        Target(Aspect.IOTHREAD, 1): sets,
        target.MEMORY: sets,
        target.SHARES: st.integers(2, 10_000),
        target.QUOTA: quotas,
    },
)


@given(baselines)
def test_the_baseline_reads_back(baseline):
    assert parse().baseline == {}
    written = definition.baseline_xml(baseline)
    # libvirt gives the element back in the namespace under which it was set.
    begin, end = "<kongming:baseline", "</kongming:baseline>"
    kept = written.replace("<baseline", f'{begin} xmlns:kongming="{definition.BASELINE_URI}"')
    kept = kept.replace("</baseline>", end)
    read = parse(metadata=NOVA_NOW + kept)
    assert read.baseline == baseline
    assert read.configured[target.vcpu(0)] == ALL
