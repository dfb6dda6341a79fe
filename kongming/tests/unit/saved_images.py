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

"""Saved images of guests, as libvirt keeps them."""

from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import EMULATOR, MEMORY, NO_QUOTA, QUOTA, SHARES, iothread, vcpu
from kongming.hypervisor.definition import BASELINE_TAG, RELEASED_URI, baseline_xml

NOVA = '<nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1"/>'
PLACED = """
<cputune>
  <shares>200</shares><period>100000</period><quota>50000</quota>
  <vcpupin vcpu='0' cpuset='1'/><vcpupin vcpu='1' cpuset='2'/>
  <emulatorpin cpuset='3'/><iothreadpin iothread='1' cpuset='3'/>
</cputune>
<numatune><memory mode='restrictive' nodeset='1'/></numatune>
"""
ALL = CpuSet(range(4))
TOUCHED = {
    vcpu(0): ALL,
    vcpu(1): ALL,
    EMULATOR: ALL,
    iothread(1): ALL,
    SHARES: 1024,
    QUOTA: NO_QUOTA,
    MEMORY: CpuSet([0, 1]),
}


def image(baseline, body=PLACED, released=()):
    note = "" if baseline is None else baseline_xml(baseline)
    uri = BASELINE_TAG[1:].partition("}")[0]
    note = note.replace("<baseline>", f'<baseline xmlns="{uri}">')
    if released:
        note += baseline_xml(dict(released), name="released").replace(
            "<released>", f'<released xmlns="{RELEASED_URI}">'
        )
    return (
        f"<domain><metadata>{NOVA}{note}</metadata><vcpu cpuset='0-3'>2</vcpu>{body}"
        "<devices/></domain>"
    )
