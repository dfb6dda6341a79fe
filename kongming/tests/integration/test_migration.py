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

"""Guests that are migrated live between two hosts: what they come with, and what becomes of it."""

from contextlib import nullcontext

import libvirt
import pytest

from kongming.allocation.cpuset import CpuSet
from kongming.tests.integration.conftest import Cloud, everywhere, status
from kongming.tests.integration.two_hosts import THERE, TwoHosts, everything_on
from kongming.tests.testbed import threads
from kongming.tests.testbed.guest import destroy
from kongming.tests.testbed.migration import MIGRATABLE, migrate
from kongming.tests.testbed.process import wait_until
from kongming.tests.thorough import stories

#: More than any host has.
MISSING = "1000"


@pytest.fixture
def guest(cloud, tmp_path):
    guest = cloud.guest(firmware=tmp_path / "firmware", iothreads=1)
    yield guest
    destroy(guest.domain)


@pytest.fixture
def placed(cloud, guest, cpus):
    """A guest whose threads are all pinned to the last CPU."""
    with cloud.daemon() as daemon:
        cloud.update(guest, **everything_on(cpus[-1]))
        status(daemon, guest, "applied")
    return guest


def persistent(guest):
    return guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)


def others(guest):
    """Return where QEMU's main thread and its iothread may run."""
    (iothread,) = threads.iothreads(guest.uuid).values()
    return [threads.affinity(threads.emulator_thread(guest.uuid)), threads.affinity(iothread)]


def handed_on(guest, *changes):
    """What the source hands on, as if its host had other CPUs and nodes."""
    xml = guest.domain.XMLDesc(MIGRATABLE)
    for before, after in changes:
        assert before in xml
        xml = xml.replace(before, after)
    return xml


def of_other_host(cpus):
    last = cpus[-1]
    return [
        (f"vcpu='0' cpuset='{last}'", f"vcpu='0' cpuset='{MISSING}'"),
        (f"emulatorpin cpuset='{last}'", f"emulatorpin cpuset='0-{MISSING}'"),
        (f"iothread='1' cpuset='{last}'", f"iothread='1' cpuset='{MISSING}'"),
        # On a host with one node nothing is to be set for that node.
        (
            "</cputune>",
            "</cputune><numatune><memory mode='restrictive' nodeset='0,9'/></numatune>",
        ),
        ("</kongming:baseline>", "<kongming:memory nodeset='0-9'/></kongming:baseline>"),
    ]


def test_a_guest_arrives_where_its_cpus_and_nodes_are_missing(placed, hooked, cpus):
    xml = handed_on(placed, *of_other_host(cpus))
    placed.domain = migrate(placed.domain, libvirt.open(hooked.uri), xml)
    assert placed.affinity() == everywhere(placed)
    assert threads.affinity(threads.emulator_thread(placed.uuid)) == threads.online_cpus()
    here = placed.domain.XMLDesc()
    assert "baseline" not in here
    assert "restrictive" not in here
    assert "<shares>300</shares>" not in here


def test_a_released_guest_arrives_released(cloud, guest, hooked, cpus):
    with cloud.daemon() as daemon:
        cloud.update(guest, **everything_on(cpus[-1]))
        status(daemon, guest, "applied")
        cloud.update(guest, vcpu_pinning=str(cpus[-1]))
        wait_until(lambda: others(guest) == [set(cpus)] * 2, 30, "a part of it is released")
        cloud.update(guest)
        wait_until(lambda: daemon.record(guest.uuid) is None, 30, "nothing is kept of it")
    xml = handed_on(guest, (f"cpuset='{CpuSet(cpus)}'", f"cpuset='0-{MISSING}'"))
    assert xml.count(MISSING) == len(("vCPU 0", "vCPU 1", "emulator", "iothread"))
    guest.domain = migrate(guest.domain, hooked.connect(), xml)
    assert guest.affinity() == everywhere(guest)
    here = guest.domain.XMLDesc()
    assert "pin " not in here
    assert "kongming" not in here.replace(guest.domain.name(), "")


def test_a_released_guest_runs_where_nova_permits_on_the_destination(
    broker, libvirtd, bare, cpus, tmp_path
):
    hosts = TwoHosts(broker, libvirtd, bare, tmp_path)
    with hosts.source() as source, hosts.destination():
        guest = hosts.guest(tmp_path / "guest", filled=False)
        hosts.update(guest, **everything_on(cpus[-1]))
        status(source, guest, "applied")
        hosts.update(guest)
        wait_until(lambda: source.record(guest.uuid) is None, 30, "nothing is kept of it")
        first = cpus[0]
        xml = handed_on(
            guest, ("<vcpu placement='static'>", f"<vcpu placement='static' cpuset='{first}'>")
        )
        guest.domain = migrate(guest.domain, bare.connect(), xml)
        hosts.arrived(guest)
        guest.wait_on(first)
        wait_until(lambda: others(guest) == [{first}] * 2, 30, "QEMU is there, too")
    hosts.close()


@stories("number", range(4))
def test_without_the_hook_a_guest_stays_on_the_source_unchanged(placed, bare, cpus, number):
    xml = handed_on(placed, of_other_host(cpus)[number])
    with pytest.raises(libvirt.libvirtError):
        migrate(placed.domain, libvirt.open(bare.uri), xml)
    placed.wait_on(cpus[-1])


@pytest.mark.needs_mounts
@pytest.mark.parametrize("has_hook", [True, False], ids=["hook", "no-hook"])
def test_a_guest_does_not_stay_on_reserved_cpus_of_the_destination(
    placed, broker, request, has_hook, cpus, tmp_path
):
    there = Cloud(
        broker, request.getfixturevalue("hooked" if has_hook else "bare"), tmp_path / "b"
    )
    last = cpus[-1]
    with there.daemon("compute-2", options=f"[guard]\nreserved_cpus = {last}\n") as daemon:
        placed.domain = migrate(placed.domain, libvirt.open(there.libvirtd.uri))
        there.update(placed, host="compute-2", vcpu_pinning=str(last), emulator_pinning=str(last))
        assert status(daemon, placed, "refused").reason == "cpu_reserved"
        placed.wait_affinity(everywhere(placed))
        assert "baseline" not in placed.domain.XMLDesc()


@pytest.mark.needs_mounts
@stories("has_hook", [True, False], ids=["hook", "no-hook"])
@pytest.mark.parametrize("runs", [True, False], ids=["running", "down-on-both-hosts"])
def test_a_guest_is_placed_as_requested_on_the_destination_and_returns_to_its_cpus_there(
    broker, libvirtd, request, has_hook, runs, cpus, tmp_path
):
    other = request.getfixturevalue("hooked" if has_hook else "bare")
    hosts = TwoHosts(broker, libvirtd, other, tmp_path)
    first, last = cpus[0], cpus[-1]
    with hosts.source() as source, hosts.destination() as destination:
        guest = hosts.guest(tmp_path / "guest", filled=False)
        hosts.update(guest, **everything_on(last))
        status(source, guest, "applied")
        if not runs:
            source.stop()
            destination.stop()
        # As Nova does it for the cpu_shared_set of the destination.
        xml = handed_on(
            guest, ("<vcpu placement='static'>", f"<vcpu placement='static' cpuset='{first}'>")
        )
        guest.domain = migrate(guest.domain, other.connect(), xml)
        hosts.arrived(guest, vcpu_pinning=str(last))
        if not runs:
            guest.wait_on(first if has_hook else last)
            source.start()
            destination.start()
        status(destination, guest, "applied")
        guest.wait_on(last)
        wait_until(lambda: others(guest) == [{first}, {first}], 30, "the others are released")
        assert "<shares>300</shares>" not in guest.domain.XMLDesc()
        wait_until(lambda: "baseline" not in persistent(guest), 30, "its definition is cleaned")
        assert f"cpuset='{last}'" not in persistent(guest)
        wait_until(lambda: source.record(guest.uuid) is None, 30, "the source has forgotten it")
        hosts.update(guest, THERE)
        guest.wait_on(first)
        wait_until(lambda: destination.record(guest.uuid) is None, 30, "nothing is kept")
        assert "baseline" not in guest.domain.XMLDesc()
    hosts.close()


@stories("runs", [True, False], ids=["running", "down"])
def test_a_soft_reboot_on_the_destination_starts_the_guest_from_a_clean_definition(
    broker, libvirtd, hooked, runs, cpus, tmp_path
):
    hosts = TwoHosts(broker, libvirtd, hooked, tmp_path)
    with hosts.source() as source:
        guest = hosts.guest(tmp_path / "guest", filled=False)
        hosts.update(guest, **everything_on(cpus[-1]))
        status(source, guest, "applied")
        xml = handed_on(guest, *of_other_host(cpus))
        guest.domain = migrate(guest.domain, hooked.connect(), xml)
    assert MISSING in persistent(guest)
    with hosts.destination() if runs else nullcontext() as destination:
        if destination:
            # What is refused there is in its definition, too.
            hosts.arrived(guest, vcpu_pinning=MISSING)
            assert status(destination, guest, "refused").reason == "cpu_unknown"
            wait_until(lambda: MISSING not in persistent(guest), 30, "its definition is cleaned")
        guest.domain.destroy()
        # Nova goes on with a hard reboot, which writes the definition again.
        with nullcontext() if runs else pytest.raises(libvirt.libvirtError):
            guest.domain.create()
            assert guest.affinity() == everywhere(guest)
    hosts.close()


def test_a_placement_that_arrived_while_the_service_was_down_is_released_at_its_start(
    placed, bare, broker, tmp_path
):
    placed.domain = migrate(placed.domain, libvirt.open(bare.uri))
    there = Cloud(broker, bare, tmp_path / "b")
    with there.daemon("compute-2"):
        placed.wait_affinity(everywhere(placed))
