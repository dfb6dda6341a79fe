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

"""Every aspect has a row, whose forms of XML agree with each other."""

from xml.etree import ElementTree as ET

import pytest

from kongming.allocation import target
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import NO_QUOTA, Aspect, Quota
from kongming.hypervisor.aspects import table
from kongming.hypervisor.aspects.row import HostBound

VALUES = {
    target.vcpu(3): CpuSet([1]),
    target.EMULATOR: CpuSet([0, 2]),
    target.iothread(2): CpuSet([1]),
    target.SHARES: 200,
    target.QUOTA: Quota(50_000, 20_000),
    target.MEMORY: CpuSet([1]),
}


def test_every_aspect_has_a_row():
    assert set(table.ROWS) == set(Aspect) == {what.aspect for what in VALUES}


@pytest.mark.parametrize("values", [VALUES, {target.QUOTA: NO_QUOTA}, {}])
def test_a_baseline_is_read_as_it_was_written(values):
    parent = ET.Element("baseline")
    table.write(parent, values)
    assert table.read(parent) == values


@pytest.mark.parametrize("what", VALUES, ids=str)
def test_a_target_is_removed_from_its_section(what):
    row = table.ROWS[what.aspect]
    domain = ET.fromstring(
        "<domain><cputune><shares>9</shares><period>9</period><quota>9</quota>"
        "<vcpupin vcpu='3' cpuset='1'/><emulatorpin cpuset='1'/>"
        "<iothreadpin iothread='2' cpuset='1'/></cputune>"
        "<numatune><memory mode='restrictive' nodeset='1'/></numatune></domain>"
    )
    before = ET.tostring(domain)
    table.remove(domain, {})
    assert ET.tostring(domain) == before
    table.remove(domain, {what: VALUES[what]})
    texts = {each.tag: each.text for each in domain.find(row.section)}
    if isinstance(row, HostBound):
        assert row.read(domain.find(row.section)) == {}
    elif what == target.SHARES:
        assert texts["shares"] == "200"
    else:
        assert (texts["quota"], texts["period"]) == ("50000", "20000")
