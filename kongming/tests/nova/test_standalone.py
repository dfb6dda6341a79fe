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
"""Requests through Kongming's own API, whatever state the instance is in."""

import uuid

from kongming.tests.nova.aspects import FIRST, NOTHING, SECOND
from kongming.tests.nova.conftest import STANDALONE
from kongming.tests.testbed.openstack.cloud import HOST
from kongming.tests.testbed.process import wait_until

TRIGGERS = (STANDALONE,)


def shown(cloud, server):
    return cloud.plane.api.get(f"/v1/allocations/{server.uuid}")


def test_host_and_project_are_those_of_nova(cloud, server):
    projects = cloud.openstack.rest.get("keystone", "/v3/projects?name=admin")["projects"]
    # Nova shows at once whose server it is, and its host once it is there.
    wait_until(lambda: shown(cloud, server)["host"], 30, "where the server is")
    allocation = shown(cloud, server)
    assert (allocation["host"], allocation["project_id"]) == (HOST, projects[0]["id"])
    assert allocation["status"] == "applied"


def test_edits_of_a_running_server(server):
    for request in (SECOND, FIRST, NOTHING, SECOND):
        server.request(request)
        server.wait_placed(request)


def test_edits_faster_than_their_passes_end_in_the_last_one(server):
    for request in (SECOND, FIRST, NOTHING, SECOND):
        server.request(request)
    server.wait_placed(SECOND)


def test_an_edit_of_a_stopped_server(cloud, server):
    server.act("os-stop", ends="power_off.end", status="SHUTOFF")
    server.request(SECOND)
    cloud.plane.wait_status(server.uuid, "absent")
    server.act("os-start", ends="power_on.end")
    server.wait_placed(SECOND)


def test_an_allocation_is_released_from_a_suspended_server(cloud, server):
    server.act("suspend", ends="suspend.end", status="SUSPENDED")
    server.request(NOTHING)
    cloud.plane.wait_gone(server.uuid)
    # It comes back with the pins that it was saved with.
    server.act("resume", ends="resume.end")
    server.wait_placed(NOTHING)


def test_an_allocation_may_exist_before_its_server(cloud):
    # Nova chooses the UUID: the allocation comes while the server is being built.
    server = cloud.server(FIRST)
    server.wait_placed(FIRST)
    server.delete()
    wait_until(
        lambda: cloud.plane.api.request("GET", f"/v1/allocations/{server.uuid}").status == 404,
        30,
        "the allocation went with its server",
    )
    history = cloud.plane.api.get(f"/v1/allocations/{server.uuid}/history")["history"]
    assert history[-1]["status"] == "gone"


def test_a_map_may_name_a_server_that_does_not_exist_yet(cloud, server):
    to_come = str(uuid.uuid4())
    path = "/v1/allocation-maps/suite"
    allocations = {server.uuid: shown(cloud, server)["allocation"], to_come: {"vcpu_pinning": "0"}}
    assert cloud.plane.api.request("PUT", path, {"allocations": allocations}).status == 201
    counts = {"applied": 1, "absent": 1}
    wait_until(lambda: cloud.plane.api.get(path)["counts"] == counts, 30, str(counts))
    assert cloud.plane.api.request("DELETE", path).status == 202
    server.wait_placed(NOTHING)
    wait_until(lambda: cloud.plane.api.request("GET", path).status == 404, 30, "the map is gone")
