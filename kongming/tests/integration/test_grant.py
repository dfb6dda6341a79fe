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

"""Guests with a NUMA topology: placed within what Nova gave them, on QEMU."""

import libvirt
import pytest

from kongming.tests.integration.conftest import status
from kongming.tests.testbed import threads
from kongming.tests.testbed.process import wait_until

pytestmark = pytest.mark.needs_mounts

PERSISTENT = libvirt.VIR_DOMAIN_XML_INACTIVE


@pytest.fixture
def daemon(cloud):
    with cloud.daemon(options="[executor]\ncheck_interval = 1\n") as daemon:
        yield daemon


@pytest.fixture
def floating(cloud, cpus, tmp_path):
    """A guest whose vCPUs Nova lets float over the two first CPUs."""
    first, second = cpus[:2]
    return cloud.guest(
        granted=[f"{first},{second}"] * 2, persistent=True, firmware=tmp_path / "firmware"
    )


def test_a_guest_is_placed_within_its_grant_and_returns_to_it(cloud, daemon, floating, cpus):
    first, second = cpus[:2]
    given = floating.domain.XMLDesc(PERSISTENT)
    cloud.update(floating, vcpu_pinning=f"0:{first};1:{second}", emulator_pinning=str(second))
    floating.wait_affinity({0: [first], 1: [second]})
    assert status(daemon, floating, "applied")
    emulator = threads.emulator_thread(floating.uuid)
    assert threads.affinity(emulator) == {second}
    floating.pin(second, vcpu=0)
    floating.wait_affinity({0: [first], 1: [second]})
    assert floating.domain.XMLDesc(PERSISTENT) == given
    cloud.update(floating)
    floating.wait_affinity({0: [first, second], 1: [first, second]})
    wait_until(lambda: daemon.record(floating.uuid) is None, 30, "nothing is kept of it")
    assert "baseline" not in floating.domain.XMLDesc()
    assert threads.affinity(emulator) == {first, second}


def test_a_guest_is_placed_again_within_the_new_grant_after_a_hard_reboot_or_refused(
    cloud, daemon, floating, cpus
):
    first, second = cpus[:2]
    cloud.update(floating, vcpu_pinning=f"0:{first};1:{second}")
    floating.wait_affinity({0: [first], 1: [second]})
    floating.domain.destroy()
    floating.domain.create()
    floating.wait_affinity({0: [first], 1: [second]})
    # As Nova does when it resizes the instance on its host.
    floating.domain.destroy()
    xml = floating.domain.XMLDesc(PERSISTENT)
    both, narrow = f"cpuset='{first}-{second}'", f"cpuset='{first}'"
    connection = floating.domain.connect()
    assert both in xml
    connection.defineXML(xml.replace(both, narrow)).create()
    refused = status(daemon, floating, "refused")
    assert refused.reason == "outside_grant"
    assert f"Nova gave vCPU 1 the CPUs {first}" in refused.message
    assert floating.affinity() == {0: {first}, 1: {first}}


def test_a_guest_returns_to_its_grant_also_after_a_volume_was_moved(cloud, daemon, floating, cpus):
    first, second = cpus[:2]
    given = {pin: f"{pin} cpuset='{first}-{second}'" for pin in ("vcpu='0'", "emulatorpin")}
    cloud.update(floating, vcpu_pinning=str(first), emulator_pinning=str(second))
    assert status(daemon, floating, "applied")
    # As Nova does it: the domain is defined from its live definition.
    floating.domain.connect().defineXML(floating.domain.XMLDesc())
    assert not any(pin in floating.domain.XMLDesc(PERSISTENT) for pin in given.values())
    cloud.update(floating)
    floating.wait_affinity({0: [first, second], 1: [first, second]})
    assert all(pin in floating.domain.XMLDesc(PERSISTENT) for pin in given.values())
    assert "baseline" not in floating.domain.XMLDesc(PERSISTENT)


def test_dedicated_cpus_are_permuted_as_a_whole(cloud, daemon, cpus, tmp_path):
    first, second = cpus[:2]
    guest = cloud.guest(
        granted=[str(first), str(second)], persistent=True, firmware=tmp_path / "firmware"
    )
    cloud.update(guest, vcpu_pinning=f"0:{second}")
    assert status(daemon, guest, "refused").reason == "dedicated_cpus"
    assert guest.affinity() == {0: {first}, 1: {second}}
    cloud.update(guest, vcpu_pinning=f"0:{second};1:{first}")
    guest.wait_affinity({0: [second], 1: [first]})
    cloud.update(guest, numa_nodes="0")
    assert status(daemon, guest, "refused").reason == "numa_memory"
    cloud.update(guest)
    guest.wait_affinity({0: [first], 1: [second]})


def test_memory_of_a_numa_guest_is_refused_and_has_no_effect(cloud, daemon, floating):
    before = floating.affinity()
    cloud.update(floating, numa_nodes="0")
    assert status(daemon, floating, "refused").reason == "numa_memory"
    assert floating.affinity() == before
    assert "baseline" not in floating.domain.XMLDesc()
