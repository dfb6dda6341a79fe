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

"""Domains to which Nova gave CPUs."""

NOVA = "<metadata><n:instance xmlns:n='http://openstack.org/xmlns/libvirt/nova/1.1'/></metadata>"


def domain(pins, emulator, cells, *, iothread="", scheduled=""):
    """Write the parts of a domain that Nova writes for a guest with a NUMA topology."""
    vcpus = "".join(f"<vcpupin vcpu='{vcpu}' cpuset='{cpus}'/>" for vcpu, cpus in enumerate(pins))
    io = f"<iothreadpin iothread='1' cpuset='{iothread}'/>" if iothread else ""
    memnodes = "".join(
        f"<memnode cellid='{cell}' mode='strict' nodeset='{cell}'/>" for cell in range(len(cells))
    )
    numa = "".join(
        f"<cell id='{cell}' cpus='{cpus}' memory='1048576' unit='KiB' memAccess='shared'/>"
        for cell, cpus in enumerate(cells)
    )
    nodes = ",".join(map(str, range(len(cells))))
    return (
        f"<domain id='1'>{NOVA}<vcpu placement='static'>{len(pins)}</vcpu>"
        f"<iothreads>1</iothreads><cputune>{vcpus}<emulatorpin cpuset='{emulator}'/>{io}"
        f"{scheduled}</cputune><numatune><memory mode='strict' nodeset='{nodes}'/>{memnodes}"
        f"</numatune><cpu><numa>{numa}</numa></cpu></domain>"
    )
