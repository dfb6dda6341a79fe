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
"""Suspended guests resume where the CPUs and nodes of their placement are missing."""

import libvirt
import pytest

from kongming.tests.integration.conftest import Cloud, everywhere, status
from kongming.tests.integration.two_hosts import everything_on
from kongming.tests.testbed import threads

pytestmark = pytest.mark.needs_mounts

#: More than any host has.
MISSING = "1000"


@pytest.mark.parametrize("has_hook", [True, False], ids=["hook", "no-hook"])
def test_a_guest_that_was_suspended_while_the_service_was_down_resumes(
    broker, request, has_hook, cpus, tmp_path
):
    libvirtd = request.getfixturevalue("hooked" if has_hook else "bare")
    cloud = Cloud(broker, libvirtd, tmp_path / "cloud")
    last = cpus[-1]
    with cloud.daemon() as daemon:
        guest = cloud.guest(firmware=tmp_path / "firmware", persistent=True, iothreads=1)
        cloud.update(guest, **everything_on(last))
        status(daemon, guest, "applied")
        daemon.stop()
        guest.domain.managedSave()
        lose_cpus(guest.domain, last)
        if has_hook:
            guest.domain.create()
            assert guest.affinity() == everywhere(guest)
            emulator = threads.emulator_thread(guest.uuid)
            assert threads.affinity(emulator) == threads.online_cpus()
            assert "baseline" not in guest.domain.XMLDesc()
            daemon.start()
        else:
            with pytest.raises(libvirt.libvirtError):
                guest.domain.create()
            daemon.start()
            daemon.wait_log(
                f"Instance {guest.uuid}: suspended; its placement was removed from the saved image"
            )
            guest.domain.create()
        guest.wait_on(last)
        status(daemon, guest, "applied")
    cloud.close()


def lose_cpus(domain, cpu):
    """Have a saved image record that its guest was placed where this host has nothing now."""
    saved = domain.managedSaveGetXMLDesc(libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE)
    placed = f"cpuset='{cpu}'"
    assert placed in saved
    domain.managedSaveDefineXML(saved.replace(placed, f"cpuset='{MISSING}'"), 0)
