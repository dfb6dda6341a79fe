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

"""What does not start a guest again: it keeps what it has got."""

import pytest

from kongming.tests.nova.aspects import FIRST
from kongming.tests.testbed.process import wait_until


@pytest.fixture
def kept(cloud, server):
    """A server whose guest lives on, and which keeps what it has, during the test."""
    before = server.threads()
    yield server
    cloud.settle()
    server.wait_placed(FIRST)
    assert server.threads() == before


def test_a_pause_and_an_unpause(kept):
    kept.act("pause", ends="pause.end", status="PAUSED")
    kept.wait_placed(FIRST)
    kept.act("unpause", ends="unpause.end")


def test_a_lock_and_an_unlock(kept):
    kept.act("lock", ends="lock")
    kept.act("unlock", ends="unlock")


def test_a_new_name(kept):
    kept.rename("another name")


def test_a_snapshot(kept):
    kept.act("createImage", {"name": "snapshot"}, ends="snapshot.end")


def test_a_reset_inside_of_the_guest_keeps_its_placement(kept):
    kept.domain().reset()


def test_a_restart_of_nova_compute(cloud, kept):
    cloud.openstack.compute.restart()


def test_a_restart_of_libvirt(cloud, kept):
    restored = cloud.daemon.log().count("libvirt is available again")
    cloud.libvirtd.stop()
    wait_until(lambda: not cloud.openstack.compute.takes_servers(), 60, "Nova misses libvirt")
    cloud.libvirtd.start()
    cloud.daemon.wait_log("libvirt is available again", times=restored + 1)
    # Nova connects again once it needs to.
    kept.act("pause", ends="pause.end", status="PAUSED")
    kept.act("unpause", ends="unpause.end")
    wait_until(cloud.openstack.compute.takes_servers, 60, "Nova has libvirt again")
