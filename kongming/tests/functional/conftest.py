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

import libvirt
import pytest

from kongming.hypervisor.connection import run_event_loop
from kongming.tests.functional.cloud import URI
from kongming.tests.testbed.preloaded import Preloaded


@pytest.fixture(scope="session")
def kongming_manage():
    """Give the command that runs kongming-manage, whose modules are loaded."""
    groups, modules = ("kongming.manage", "kongming.terminal"), ("kongming.db.migration",)
    with Preloaded("kongming-manage", groups=groups, modules=modules) as program:
        yield program.command


@pytest.fixture(scope="session")
def openstack_command():
    """Give the command that runs openstack, whose modules are loaded."""
    with Preloaded("openstack", groups=["openstack."]) as program:
        yield program.command


@pytest.fixture(scope="module")
def connection():
    run_event_loop()
    connection = libvirt.open(URI)
    yield connection
    connection.close()
