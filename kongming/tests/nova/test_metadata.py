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

"""Requests through an instance's metadata, whatever state the instance is in."""

from kongming.conf.notification_handler import LEGACY, VERSIONED
from kongming.tests.nova.aspects import ASPECTS, FIRST, NOTHING, SECOND
from kongming.tests.testbed.process import wait_until

TRIGGERS = (VERSIONED, LEGACY)


def test_a_server_created_with_the_keys_is_placed_as_requested(cloud):
    server = cloud.server(FIRST)
    server.wait_placed(FIRST)
    wait_until(lambda: cloud.daemon.record(server.uuid).status == "applied", 30, "applied")
    server.delete()


def test_a_server_without_the_keys_is_left_alone_until_they_are_set(cloud):
    server = cloud.server(NOTHING)
    cloud.settle()
    assert server.looks() == NOTHING.looks(2)
    assert cloud.daemon.record(server.uuid) is None
    assert server.uuid not in cloud.daemon.log()
    server.request(FIRST)
    server.wait_placed(FIRST)
    server.delete()


def test_edits_of_a_running_server(server):
    for request in (SECOND, FIRST, SECOND):
        server.request(request)
        server.wait_placed(request)


def test_edits_faster_than_their_passes_end_in_the_last_one(server):
    for request in (SECOND, FIRST, NOTHING, SECOND):
        server.request(request)
    server.wait_placed(SECOND)


def test_the_keys_are_removed_one_by_one_and_set_again(cloud, server):
    for aspect in ASPECTS:
        server.remove_key(aspect.key)
    server.wait_placed(NOTHING)
    cloud.wait_forgotten(server)
    server.request(FIRST)
    server.wait_placed(FIRST)


def test_an_unreadable_edit_has_no_effect(cloud, server):
    key = ASPECTS[0].key
    for request in (FIRST, SECOND):
        server.request(request)
        server.wait_placed(request)
        server.set_metadata(request.metadata | {key: "unreadable"})
        cloud.settle()
        assert server.looks() == request.looks(2)
        wait_until(lambda: cloud.daemon.record(server.uuid).status == "refused", 30, "refused")


def test_an_edit_of_a_stopped_server(server):
    server.act("os-stop", ends="power_off.end", status="SHUTOFF")
    server.request(SECOND)
    server.act("os-start", ends="power_on.end")
    server.wait_placed(SECOND)


def test_an_edit_of_a_paused_server_does_not_wait_for_its_end(server):
    server.act("pause", ends="pause.end", status="PAUSED")
    server.request(SECOND)
    server.wait_placed(SECOND)
    server.act("unpause", ends="unpause.end")
    server.wait_placed(SECOND)


def test_an_edit_of_a_suspended_server(server):
    server.act("suspend", ends="suspend.end", status="SUSPENDED")
    server.request(SECOND)
    # It comes back with the pins that it was saved with.
    server.act("resume", ends="resume.end")
    server.wait_placed(SECOND)


def test_the_keys_are_removed_from_a_suspended_server(server):
    server.act("suspend", ends="suspend.end", status="SUSPENDED")
    server.request(NOTHING)
    server.act("resume", ends="resume.end")
    server.wait_placed(NOTHING)


def test_a_rebuild_with_other_metadata(cloud, server):
    image = cloud.openstack.image_id
    server.act("rebuild", {"imageRef": image, "metadata": SECOND.metadata}, ends="rebuild.end")
    server.wait_placed(SECOND)


def test_a_deleted_server_is_forgotten(cloud):
    server = cloud.server(FIRST)
    server.wait_placed(FIRST)
    server.delete()
    cloud.wait_forgotten(server)
