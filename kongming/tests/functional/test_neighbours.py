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

"""Cores that guests share, and CPUs that are isolated, on libvirt's test driver.

CPUs 0, 2 and 4 are online. The tests decide what they are like: 0 and 2 are the threads of
one core, 2 and 4 are isolated.
"""

import time

import libvirt
import pytest

from kongming import exception
from kongming.allocation import metadata
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.request import Request, Source
from kongming.host.topology import Cell, Cpu, Topology
from kongming.hypervisor import capabilities
from kongming.hypervisor.connection import run_event_loop
from kongming.tests.functional.cloud import URI, Cloud, pins, wait_for

CORE = CpuSet([0, 2])
CPUS = (
    Cpu(0, 0, 0, 0, CORE, online=True),
    Cpu(2, 0, 0, 0, CORE, online=True, isolated=True),
    Cpu(4, 0, 0, 1, CpuSet([4]), online=True, isolated=True),
)


@pytest.fixture
def cloud(monkeypatch, tmp_path):
    topology = Topology((Cell(0, 1 << 20, cpus=CPUS),))
    monkeypatch.setattr(capabilities, "read", lambda _connection, _system: topology)
    run_event_loop()
    cloud = Cloud(tmp_path, libvirt.open(URI)).start()
    yield cloud
    cloud.stop()
    for domain in cloud.domains:
        domain.destroy()


def parsed(pinning):
    return metadata.parse({"kongming-vcpu-pinning": pinning})


def request(cloud, guest, pinning):
    # libvirt's test driver, unlike the others, reports no pins.
    cloud.service._executor._hypervisor._occupancy.forget()
    cloud.service._executor.request(
        guest.UUIDString(), Request(Source.OPERATOR, parsed(pinning), "test", time.time())
    )


def plan(cloud, guest, pinning):
    return cloud.service._executor.plan(guest.UUIDString(), parsed(pinning))


def wait_record(cloud, guest, status):
    wait_for(lambda: (record := cloud.record(guest)) and record.status == status)
    return cloud.record(guest)


def violations(cloud):
    cloud.service._executor._hypervisor._occupancy.forget()
    found = cloud.service._executor.snapshot()["violations"]
    return [(each["kind"], each["cpus"]) for each in found]


def test_a_guest_is_warned_about_a_neighbour_on_its_core(cloud):
    first, second = cloud.guest(vcpus=1), cloud.guest(vcpus=1)
    request(cloud, first, "0")
    wait_record(cloud, first, "applied")
    message = f"same cores: CPU 0 beside CPU 2: instance {first.UUIDString()} ({first.name()})"
    cloud.service._executor._hypervisor._occupancy.forget()
    (warning,) = plan(cloud, second, "2").warnings
    assert warning.endswith(message)
    request(cloud, second, "2")
    assert message in wait_record(cloud, second, "applied").message
    assert violations(cloud) == [("smt_sibling", "0,2")]


def test_a_guest_is_refused_a_shared_core_where_the_rules_forbid_it(cloud):
    cloud.conf.set_override("smt", "refuse", "guard")
    cloud.service.reload()
    first, second = cloud.guest(vcpus=1), cloud.guest(vcpus=1)
    before = pins(second)
    request(cloud, first, "0")
    wait_record(cloud, first, "applied")
    request(cloud, second, "2")
    record = wait_record(cloud, second, "refused")
    assert record.reason == "smt_sibling"
    assert f"CPU 0 beside CPU 2: instance {first.UUIDString()}" in record.message
    assert pins(second) == before
    with pytest.raises(exception.SmtSibling):
        plan(cloud, second, "2")
    # They are not in each other's way for ever: the first one leaves the core.
    request(cloud, first, "4")
    wait_record(cloud, first, "applied")
    request(cloud, second, "2")
    cloud.service._executor.check_all()
    wait_record(cloud, second, "applied")
    assert violations(cloud) == []


def test_guests_that_swap_cores_do_not_refuse_each_other(cloud):
    cloud.conf.set_override("smt", "refuse", "guard")
    cloud.conf.set_override("overlap", "refuse", "guard")
    cloud.service.reload()
    first, second = cloud.guest(vcpus=1), cloud.guest(vcpus=1)
    request(cloud, first, "0")
    request(cloud, second, "4")
    for guest in (first, second):
        wait_record(cloud, guest, "applied")
    request(cloud, first, "4")
    assert wait_record(cloud, first, "refused").reason == "overlap"
    # A dry run shows what would be done: they would swap.
    (step,) = plan(cloud, second, "0").steps
    assert (step.target, step.desired) == ("vCPU 0", "0")
    # CPU 2 is beside the first one's, which is to move elsewhere.
    request(cloud, second, "2")
    wait_for(lambda: pins(second) == [{2}])
    request(cloud, first, "4")
    cloud.service._executor.check_all()
    wait_for(lambda: pins(first) == [{4}])


def test_a_set_of_isolated_cpus_is_reported_with_better_pins(cloud):
    guest = cloud.guest(vcpus=2)
    proposed = "pin each to one CPU: 0:2;1:4"
    (warning,) = plan(cloud, guest, "2,4").warnings
    assert warning.endswith(proposed)
    request(cloud, guest, "2,4")
    assert proposed in wait_record(cloud, guest, "applied").message
    assert violations(cloud) == [("isolated", "2,4")]
    # There is no warning about proposed pins.
    assert plan(cloud, guest, "0:2;1:4").warnings == ()
    request(cloud, guest, "0:2;1:4")
    wait_for(lambda: pins(guest) == [{2}, {4}])
    wait_for(lambda: cloud.record(guest).message == "")
    assert violations(cloud) == []
