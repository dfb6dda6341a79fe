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

"""What several modules of functional tests use."""

from futurist import _thread
import libvirt
import pytest

from kongming.conductor import delivery
from kongming.executor import watch
from kongming.hypervisor.connection import run_event_loop
from kongming.standalone import conductor_sync
from kongming.tests.functional.cloud import URI
from kongming.tests.testbed.preloaded import Preloaded


@pytest.fixture(scope="session")
def kongming_manage():
    """Return the command that runs kongming-manage, whose modules are loaded."""
    groups, modules = ("kongming.manage", "kongming.terminal"), ("kongming.db.migration",)
    with Preloaded("kongming-manage", groups=groups, modules=modules) as program:
        yield program.command("kongming-manage")


@pytest.fixture(scope="session")
def openstack_command():
    """Return the command that runs openstack, whose modules are loaded."""
    with Preloaded("openstack", groups=["openstack."]) as program:
        yield program.command("openstack")


@pytest.fixture(scope="session", autouse=True)
def short_intervals():
    """Have the services look more often at what is due, so that tests wait less for them."""
    with pytest.MonkeyPatch.context() as patch:
        # The idle threads of a server of oslo.messaging notice that it stops.
        patch.setattr(_thread.ThreadWorker, "MAX_IDLE_FOR", 0.05)
        patch.setattr(delivery, "_TICK_S", 0.1)
        patch.setattr(watch, "_TICK_S", 0.1)
        patch.setattr(conductor_sync, "_TICK_S", 0.1)
        patch.setattr(conductor_sync, "_SNAPSHOT_S", 0.2)
        yield


@pytest.fixture(scope="module")
def connection():
    run_event_loop()
    connection = libvirt.open(URI)
    yield connection
    connection.close()
