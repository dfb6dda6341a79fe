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

"""Guests whose CPUs Nova chose itself: placed within what it gave them, whatever it does next."""

import pytest

from kongming.conf.notification_handler import VERSIONED
from kongming.tests.nova.accounts import accounts
from kongming.tests.nova.aspects import FIRST, NOTHING, NUMA_NODES, WITHIN
from kongming.tests.nova.refusals import wait_refused
from kongming.tests.testbed.openstack.content import NUMA_FLAVOR, PAGES_FLAVOR, flavor
from kongming.tests.testbed.process import wait_until

TRIGGERS = (VERSIONED,)
PLAIN = flavor(2)


@pytest.fixture(params=[NUMA_FLAVOR, PAGES_FLAVOR])
def guest(cloud, request):
    """A server with a NUMA topology, unless it has another flavor, and without a request."""
    server = cloud.server(NOTHING, request.param)
    assert ("<memnode" in server.domain().XMLDesc()) is (request.param != PLAIN)
    yield server
    server.delete()
    cloud.wait_forgotten(server)


def resize(server, name):
    server.act("resize", {"flavorRef": name}, ends="resize_finish.end", status="VERIFY_RESIZE")
    server.act("confirmResize", ends="resize_confirm.end")


@pytest.mark.parametrize("guest", [NUMA_FLAVOR, PAGES_FLAVOR, PLAIN], indirect=True)
def test_the_accounting_of_nova_is_unchanged_by_a_placement(cloud, guest):
    before = accounts(cloud.openstack, guest.uuid)
    assert bool(before["instance"]) is (guest.flavor != PLAIN)
    guest.request(WITHIN)
    guest.wait_placed(WITHIN)
    assert accounts(cloud.openstack, guest.uuid) == before
    guest.act("reboot", {"type": "HARD"}, ends="reboot.end")
    guest.wait_placed(WITHIN)
    guest.request(NOTHING)
    guest.wait_placed(NOTHING)
    assert accounts(cloud.openstack, guest.uuid) == before


def test_a_guest_is_placed_again_within_its_grant_after_every_kind_of_restart(cloud, guest):
    guest.request(WITHIN)
    guest.wait_placed(WITHIN)
    guest.act("reboot", {"type": "HARD"}, ends="reboot.end")
    guest.wait_placed(WITHIN)
    guest.act("os-stop", ends="power_off.end", status="SHUTOFF")
    guest.act("os-start", ends="power_on.end")
    guest.wait_placed(WITHIN)
    guest.act("rebuild", {"imageRef": cloud.openstack.image_id}, ends="rebuild.end")
    guest.wait_placed(WITHIN)
    guest.act("suspend", ends="suspend.end", status="SUSPENDED")
    guest.act("resume", ends="resume.end")
    guest.wait_placed(WITHIN)
    # What another flavor of the other kind gives is as wide.
    other = PAGES_FLAVOR if guest.flavor == NUMA_FLAVOR else NUMA_FLAVOR
    resize(guest, other)
    guest.wait_placed(WITHIN)


def test_memory_stays_where_nova_bound_it_until_the_guest_is_a_plain_one(cloud, guest):
    resize(guest, PLAIN)
    never_placed = accounts(cloud.openstack, guest.uuid)
    resize(guest, guest.flavor)
    guest.request(WITHIN)
    guest.wait_placed(WITHIN)
    guest.request(FIRST)
    wait_refused(cloud, guest, "numa_memory")
    guest.wait_placed(WITHIN)
    assert NUMA_NODES.key in FIRST.metadata
    resize(guest, PLAIN)
    assert "<memnode" not in guest.domain().XMLDesc()
    guest.wait_placed(FIRST)
    wait_until(lambda: cloud.daemon.record(guest.uuid).status == "applied", 30, "applied")
    assert accounts(cloud.openstack, guest.uuid) == never_placed
    guest.request(NOTHING)
    guest.wait_placed(NOTHING)
    assert accounts(cloud.openstack, guest.uuid) == never_placed
