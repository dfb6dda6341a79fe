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
"""Guests with a NUMA topology are migrated live: they are placed again within their new grant."""

import libvirt
import pytest

from kongming.tests.integration.conftest import status
from kongming.tests.integration.two_hosts import HERE
from kongming.tests.testbed import threads
from kongming.tests.testbed.migration import migrate, regranted
from kongming.tests.testbed.process import wait_until
from kongming.tests.thorough import stories

OPTIONS = "[executor]\ncheck_interval = 1\n"


def persistent(domain):
    return domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)


def go(hosts, guest, granted):
    """Migrate a guest as Nova does; return its domain there, and what Nova handed on."""
    xml = regranted(guest.domain, granted)
    guest.domain = migrate(guest.domain, hosts.there.libvirtd.connect(), xml)
    return guest.domain


def all_affinities(guest):
    """Return where the vCPUs, the emulator and the iothread may run."""
    (iothread,) = threads.iothreads(guest.uuid).values()
    emulator = threads.emulator_thread(guest.uuid)
    return (*guest.affinity().values(), threads.affinity(emulator), threads.affinity(iothread))


@stories("withdrawn", [False, True], ids=["requested", "withdrawn"])
@pytest.mark.parametrize("narrow", [False, True], ids=["within", "outside"])
def test_a_guest_is_placed_again_within_its_new_grant_or_runs_on_all_of_it(
    hosts, source, destination, cpus, tmp_path, narrow, withdrawn
):
    first, second = cpus[:2]
    both = f"{first},{second}"
    given = [str(second)] * 2 if narrow else [both] * 2
    requested = {
        "vcpu_pinning": f"0:{first};1:{second}",
        "emulator_pinning": str(second),
        "iothread_pinning": str(first),
        "cpu_shares": "300",
    }
    guest = hosts.guest(tmp_path / "guest", granted=[both] * 2)
    hosts.update(guest, **requested)
    status(source, guest, "applied")
    domain = go(hosts, guest, given)
    requested = {} if withdrawn else requested
    hosts.arrived(guest, **requested)
    whole = {second} if narrow else {first, second}
    expected = (whole,) * 4
    if not (withdrawn or narrow):
        status(destination, guest, "applied")
        expected = ({first}, {second}, {second}, {first})
    elif narrow and not withdrawn:
        refused = status(destination, guest, "refused")
        assert refused.reason == "outside_grant"
        assert f"Nova gave vCPU 0 the CPUs {second}" in refused.message
    wait_until(lambda: all_affinities(guest) == expected, 30, f"its threads are on {expected}")
    in_force = not (withdrawn or narrow)
    wait_until(lambda: ("baseline" in domain.XMLDesc()) is in_force, 30, "the note is of here")
    assert ("<shares>300</shares>" in domain.XMLDesc()) is in_force
    # Its definition there is the new grant, and has nothing of the request.
    wait_until(lambda: "baseline" not in persistent(domain), 30, "its definition is cleaned")
    pins = [f"vcpupin vcpu='{vcpu}' cpuset='" for vcpu in (0, 1)]
    pins += ["emulatorpin cpuset='", "iothreadpin iothread='1' cpuset='"]
    written = str(second) if narrow else f"{first}-{second}"
    for pin in pins:
        assert f"{pin}{written}'" in persistent(domain)
    assert "<shares>300</shares>" not in persistent(domain)
    wait_until(lambda: source.record(guest.uuid) is None, 30, "the source has forgotten it")


def test_dedicated_cpus_are_permuted_again_on_the_destination(
    hosts, source, destination, cpus, tmp_path
):
    first, second = cpus[:2]
    guest = hosts.guest(tmp_path / "guest", granted=[str(first), str(second)])
    requested = {"vcpu_pinning": f"0:{second};1:{first}"}
    hosts.update(guest, **requested)
    guest.wait_affinity({0: [second], 1: [first]})
    go(hosts, guest, [str(first), str(second)])
    assert guest.affinity() == {0: {first}, 1: {second}}
    hosts.arrived(guest, **requested)
    guest.wait_affinity({0: [second], 1: [first]})
    status(destination, guest, "applied")


def test_a_guest_returns_from_a_host_without_kongming_to_another_grant(
    hosts, source, cpus, tmp_path
):
    first, second = cpus[:2]
    guest = hosts.guest(tmp_path / "guest", granted=[str(first)] * 2)
    hosts.update(guest, vcpu_pinning=str(first), cpu_shares="300")
    status(source, guest, "applied")
    go(hosts, guest, [str(first)] * 2)
    hosts.arrived(guest, vcpu_pinning=str(first), cpu_shares="300")
    wait_until(lambda: source.record(guest.uuid) is None, 30, "the source has forgotten it")
    xml = regranted(guest.domain, [str(second)] * 2)
    guest.domain = migrate(guest.domain, hosts.here.libvirtd.connect(), xml)
    hosts.update(guest, HERE, "instance.live_migration_post_dest.end", vcpu_pinning=str(first))
    assert status(source, guest, "refused").reason == "outside_grant"
    assert all_affinities(guest) == ({second},) * 4
    assert f"vcpupin vcpu='0' cpuset='{second}'" in persistent(guest.domain)
    assert "baseline" not in persistent(guest.domain)
