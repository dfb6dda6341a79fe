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

"""What Nova does not announce, or Kongming could not receive: nothing of it is missed."""

import pytest

from kongming.tests.nova.aspects import FIRST, NOTHING, SECOND


def test_a_guest_that_was_restarted_without_nova_is_placed_again(server):
    before = server.threads()
    domain = server.domain()
    domain.destroy()
    domain.create()
    server.wait_restarted(before)
    server.wait_placed(FIRST)
    assert server.status == "ACTIVE"


def test_a_guest_that_nova_starts_after_the_host_has_booted(cloud, server):
    before = server.threads()
    cloud.openstack.compute.stop()
    server.domain().destroy()
    cloud.openstack.compute.start()
    server.wait_restarted(before)
    server.wait_placed(FIRST)
    server.wait_status("ACTIVE")


@pytest.mark.parametrize("request_", [SECOND, NOTHING], ids=["edited", "removed"])
def test_an_edit_while_the_service_is_down(cloud, server, request_):
    assert cloud.daemon.stop() == 0
    server.request(request_)
    assert server.looks() == FIRST.looks(2)
    cloud.daemon.start()
    server.wait_placed(request_)


def test_edits_while_the_service_is_killed_again_and_again(cloud, server):
    for request in (SECOND, FIRST, NOTHING, SECOND):
        cloud.daemon.kill()
        cloud.daemon.start_soon()
        server.request(request)
    cloud.daemon.wait_ready()
    server.wait_placed(SECOND)


def test_a_reboot_while_the_service_is_down(cloud, server):
    assert cloud.daemon.stop() == 0
    server.act("reboot", {"type": "HARD"}, ends="reboot.end")
    cloud.daemon.start()
    server.wait_placed(FIRST)


def test_a_delete_while_the_service_is_down(cloud, server):
    assert cloud.daemon.stop() == 0
    server.delete()
    cloud.daemon.start()
    cloud.wait_forgotten(server)
