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

import pytest

from kongming.cpuset import CpuSet
from kongming.hypervisor import definition

NOVA = (
    '<nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/{}">'
    "<nova:name>s1</nova:name></nova:instance>"
)
NOVA_NOW = NOVA.format("1.1")
OTHER = '<app:x xmlns:app="http://example.org/nova/1.1"/>'


def xml(*, metadata=NOVA_NOW, vcpu="<vcpu placement='static'>4</vcpu>", more=""):
    return f"<domain type='kvm'><metadata>{metadata}</metadata>{vcpu}{more}</domain>"


def parse(**parts):
    return definition.parse(xml(**parts), host_cpus=8)


@pytest.mark.parametrize(
    ("metadata", "nova"),
    [(NOVA.format("1.0"), True), (NOVA.format("1.1"), True), (OTHER, False), ("", False)],
)
def test_a_domain_of_nova_is_known_by_novas_element(metadata, nova):
    assert parse(metadata=metadata).nova is nova


def test_an_unpinned_vcpu_may_run_on_all_cpus():
    assert parse().pins == dict.fromkeys(range(4), CpuSet(range(8)))


def test_or_on_those_that_nova_named_for_all():
    read = parse(vcpu="<vcpu placement='static' cpuset='0-3,^2' current='1'>4</vcpu>")
    assert read.pins == dict.fromkeys(range(4), CpuSet([0, 1, 3]))


def test_pins_are_read_vcpu_by_vcpu():
    more = "<cputune><shares>100</shares><vcpupin vcpu='2' cpuset='5-6'/></cputune>"
    assert parse(more=more).pins == dict.fromkeys(range(4), CpuSet(range(8))) | {2: {5, 6}}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("<cpu><topology sockets='1'/></cpu>", None),
        ("<numatune><memory mode='strict' nodeset='0'/></numatune>", None),
        ("<cpu><numa><cell id='0' cpus='0-3' memory='1'/></numa></cpu>", "NUMA topology"),
        ("<numatune><memnode cellid='0' mode='strict' nodeset='1'/></numatune>", "memnode"),
    ],
)
def test_nova_owns_the_placement_of_guests_with_a_topology(more, says):
    read = parse(more=more)
    assert (read.nova_owns is None) if says is None else (says in read.nova_owns)


def test_the_baseline_reads_back():
    pins = {0: CpuSet([1, 2]), 1: CpuSet([7])}
    assert parse().baseline is None
    written = definition.baseline_xml(pins)
    # libvirt gives the element back in the namespace under which it was set.
    kept = written.replace(
        "<baseline>", f'<kongming:baseline xmlns:kongming="{definition.BASELINE_URI}">'
    )
    kept = kept.replace("</baseline>", "</kongming:baseline>")
    assert parse(metadata=NOVA_NOW + kept).baseline == pins
    assert parse(metadata=NOVA_NOW + kept).pins[0] == CpuSet(range(8))
