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

"""Who sits on the host, read from the domains' XML."""

import libvirt
import pytest

from kongming.allocation.cpuset import CpuSet
from kongming.host.occupant import Occupant
from kongming.hypervisor import occupancy
from kongming.tests import libvirt_errors

UUID = "5f0c3b52-6a0e-4c6e-9a5f-0d6a4f0b8c11"
PROJECT = "0f2b9b9e3d1c4c4e8f3a7d5b6c1e2f30"
NOVA = (
    '<metadata><nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">'
    f'<nova:owner><nova:user uuid="u">x</nova:user><nova:project uuid="{PROJECT}">p'
    "</nova:project></nova:owner></nova:instance></metadata>"
)


def parse(more="", *, vcpu="<vcpu>4</vcpu>", metadata=NOVA):
    return occupancy.parse(
        f"<domain id='1'><name>instance-00000001</name><uuid>{UUID}</uuid>"
        f"{metadata}{vcpu}{more}</domain>"
    )


def test_a_guest_of_nova():
    read = parse()
    assert (read.instance_uuid, read.name) == (UUID, "instance-00000001")
    assert read.nova
    assert read.project_id == PROJECT
    assert read.floating
    assert read.cpuset is None
    assert read.memory_nodes is None


@pytest.mark.parametrize(
    "metadata", ["", '<metadata><x:y xmlns:x="http://example.org/nova/1.1"/></metadata>']
)
def test_a_guest_without_placement_occupies_the_cpus_that_libvirt_configured(metadata):
    read = parse(metadata=metadata)
    assert not read.nova
    assert read.project_id is None


def test_an_instance_of_an_older_nova_has_fewer_details():
    element = '<nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.0"/>'
    read = parse(metadata=f"<metadata>{element}</metadata>")
    assert read.nova
    assert read.project_id is None


def test_only_pinned_vcpus_are_pins():
    read = parse(
        "<cputune><shares>1</shares><vcpupin vcpu='2' cpuset='5-6'/>"
        "<emulatorpin cpuset='0'/></cputune>"
    )
    assert read.pins == {2: CpuSet([5, 6])}
    assert not read.floating


def test_a_floating_guest_may_be_confined_to_some_cpus():
    read = parse(vcpu="<vcpu placement='static' cpuset='0-3,^1'>4</vcpu>")
    assert read.floating
    assert read.cpuset == {0, 2, 3}


@pytest.mark.parametrize(
    ("numatune", "nodes"),
    [
        ("<memory mode='strict' nodeset='0-1'/>", {0, 1}),
        ("<memory mode='strict' placement='auto'/>", None),
        ("<memnode cellid='0' mode='strict' nodeset='1'/>", None),
    ],
)
def test_where_its_memory_is_bound(numatune, nodes):
    assert parse(f"<numatune>{numatune}</numatune>").memory_nodes == nodes


NUMA = """<cputune><vcpupin vcpu='0' cpuset='{}'/><vcpupin vcpu='1' cpuset='4'/>
<emulatorpin cpuset='4-7'/></cputune><cpu><numa><cell id='0' cpus='0-1'/></numa></cpu>"""


class Connection:
    """libvirt with one running domain, by its two definitions.

    :ivar control: the state of the control interface to QEMU
    """

    def __init__(self, live, persistent):
        self.control = [0, 0, 0]
        self.definitions = {0: live, libvirt.VIR_DOMAIN_XML_INACTIVE: persistent}

    def listAllDomains(self, _flags):  # noqa: N802
        return [self]

    def UUIDString(self):  # noqa: N802
        return UUID

    def ID(self):  # noqa: N802
        return 1

    def controlInfo(self):  # noqa: N802
        return self.control

    def XMLDesc(self, flags=0):  # noqa: N802
        return f"<domain id='1'>{NOVA}<vcpu>2</vcpu>{self.definitions[flags]}</domain>"


@pytest.mark.parametrize(
    ("live", "pins"),
    [("4-7", {1: CpuSet([4])}), ("5", {0: CpuSet([5]), 1: CpuSet([4])})],
    ids=["floating", "narrowed"],
)
def test_a_vcpu_that_has_all_of_its_grant_floats_unless_that_is_one_cpu(live, pins):
    everybody = occupancy.Occupancy().read(
        Connection(NUMA.format(live), NUMA.format("4-7")), CpuSet(range(16))
    )
    assert [each.pins for each in everybody] == [pins]
    assert everybody[0].grant.vcpus == {0: CpuSet.parse("4-7"), 1: CpuSet([4])}
    assert Occupant.from_json(everybody[0].to_json()) == everybody[0]


def test_a_domain_is_read_again_when_it_was_started_again_and_only_then():
    pinned = "<cputune><vcpupin vcpu='0' cpuset='{}'/></cputune>"
    cache, connection = occupancy.Occupancy(), Connection(pinned.format(4), "")

    def pins():
        return [each.pins for each in cache.read(connection, CpuSet(range(16)))]

    assert pins() == [{0: CpuSet([4])}]
    connection.definitions[0] = pinned.format(5)
    cache.forget("another")
    assert pins() == [{0: CpuSet([4])}]
    connection.ID = lambda: 2
    assert pins() == [{0: CpuSet([4])}]
    cache.forget("another")
    assert pins() == [{0: CpuSet([5])}]


class Hung(Connection):
    """One whose QEMU has not responded for a while."""

    def __init__(self):
        super().__init__("<cputune><vcpupin vcpu='1' cpuset='4'/></cputune>", "")
        self.control = [libvirt.VIR_DOMAIN_CONTROL_OCCUPIED, 0, 6_000]

    def name(self):
        return "instance-00000001"

    def metadata(self, _kind, uri):
        if not uri.endswith("/nova/1.1"):
            raise libvirt_errors.error(libvirt.VIR_ERR_NO_DOMAIN_METADATA)
        return f"<instance><owner><project uuid='{PROJECT}'>p</project></owner></instance>"

    def vcpuPinInfo(self):  # noqa: N802
        return [tuple(cpu in cpus for cpu in range(16)) for cpus in (range(16), {4})]


def test_a_guest_that_hangs_is_known_by_what_needs_no_qemu_until_it_responds():
    cache, connection = occupancy.Occupancy(), Hung()
    online = CpuSet(range(16))
    (abridged,) = cache.read(connection, online)
    assert (abridged.instance_uuid, abridged.name) == (UUID, "instance-00000001")
    assert abridged.project_id == PROJECT
    assert abridged.pins == {1: CpuSet([4])}
    connection.control = [0, 0, 0]
    connection.definitions[0] = "<cputune><vcpupin vcpu='1' cpuset='5'/></cputune>"
    assert [each.pins for each in cache.read(connection, online)] == [{1: CpuSet([5])}]
    connection.control = Hung().control
    assert [each.pins for each in cache.read(connection, online)] == [{1: CpuSet([5])}]


def test_a_guest_that_hung_and_has_ended_meanwhile_is_no_occupant():
    def ended():
        raise libvirt_errors.error(libvirt.VIR_ERR_NO_DOMAIN)

    connection = Hung()
    connection.vcpuPinInfo = connection.isActive = ended
    assert occupancy.Occupancy().read(connection, CpuSet(range(16))) == []


def test_its_json():
    shown = parse("<cputune><vcpupin vcpu='0' cpuset='3'/></cputune>").to_json()
    assert shown == {
        "instance_uuid": UUID,
        "name": "instance-00000001",
        "project_id": PROJECT,
        "nova": True,
        "pins": {"0": "3"},
        "cpuset": None,
        "memory_nodes": None,
        "has_baseline": False,
        "grant": None,
    }
