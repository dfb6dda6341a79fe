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

"""What makes Nova start a guest again: the request is applied, each time."""

from kongming.tests.nova.aspects import FIRST
from kongming.tests.testbed.openstack import content


def nova_compute_logged(cloud, server, text):
    log = cloud.openstack.compute.process.log.read_text()
    return any(server.uuid in line and text in line for line in log.splitlines())


def test_a_soft_reboot(cloud, server):
    before = server.threads()
    server.act("reboot", {"type": "SOFT"}, ends="reboot.end")
    # Had the guest not obeyed, it would have become a hard one.
    assert nova_compute_logged(cloud, server, "soft rebooted")
    assert server.threads() != before
    server.wait_placed(FIRST)


def test_a_hard_reboot(server):
    before = server.threads()
    server.act("reboot", {"type": "HARD"}, ends="reboot.end")
    assert server.threads() != before
    server.wait_placed(FIRST)


def test_a_stop_and_a_start(cloud, server):
    server.act("os-stop", ends="power_off.end", status="SHUTOFF")
    cloud.settle()
    assert server.looks() == {}
    server.act("os-start", ends="power_on.end")
    server.wait_placed(FIRST)


def test_a_guest_that_powers_off_by_itself_and_is_started(server):
    server.press_power_button()
    server.act("os-start", ends="power_on.end")
    server.wait_placed(FIRST)


def test_a_suspend_and_a_resume(server):
    before = server.threads()
    server.act("suspend", ends="suspend.end", status="SUSPENDED")
    server.act("resume", ends="resume.end")
    assert server.threads() != before
    server.wait_placed(FIRST)


def test_a_rebuild(cloud, server):
    before = server.threads()
    server.act("rebuild", {"imageRef": cloud.openstack.image_id}, ends="rebuild.end")
    assert server.threads() != before
    server.wait_placed(FIRST)


def test_a_resize_that_is_confirmed(server):
    resize(server, 4)
    server.wait_placed(FIRST)
    server.act("confirmResize", ends="resize_confirm.end")
    server.wait_placed(FIRST)


def test_a_resize_that_is_reverted(server):
    resize(server, 3)
    server.wait_placed(FIRST)
    server.act("revertResize", ends="resize_revert.end")
    server.wait_placed(FIRST)


def test_a_resize_to_fewer_vcpus_than_are_named_leaves_the_others_in_force(cloud, server):
    resize(server, 1)
    cloud.daemon.wait_log(f"Instance {server.uuid}: refused (vcpu_unknown): ")
    cloud.settle()
    server.wait_placed(FIRST)
    server.act("revertResize", ends="resize_revert.end")
    server.wait_placed(FIRST)


def resize(server, vcpus):
    flavor = {"flavorRef": content.flavor(vcpus)}
    server.act("resize", flavor, ends="resize_finish.end", status="VERIFY_RESIZE")
    assert server.vcpus == vcpus


def test_a_shelved_server_is_unshelved(server):
    server.act("shelve", ends="shelve.end", status="SHELVED")
    assert server.looks() == {}
    # It is still on its host: Nova just starts it.
    server.act("unshelve", ends="power_on.end")
    server.wait_placed(FIRST)


def test_a_shelved_server_leaves_the_host_and_comes_back(cloud, server):
    server.act("shelve", ends="shelve.end", status="SHELVED")
    server.act("shelveOffload", ends="shelve_offload.end", status="SHELVED_OFFLOADED")
    cloud.wait_forgotten(server)
    server.act("unshelve", ends="unshelve.end")
    server.wait_placed(FIRST)


def test_a_rescue_and_an_unrescue(server):
    before = server.threads()
    server.act("rescue", {}, ends="rescue.end", status="RESCUE")
    rescued = server.threads()
    assert rescued != before
    server.wait_placed(FIRST)
    server.act("unrescue", ends="unrescue.end")
    assert server.threads() not in (before, rescued)
    server.wait_placed(FIRST)


def test_a_deleted_server_that_is_restored(cloud, server):
    server.soft_delete()
    cloud.wait_forgotten(server)
    server.act("restore", ends="restore.end")
    server.wait_placed(FIRST)
