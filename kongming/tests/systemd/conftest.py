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

"""A machine whose init is systemd, with RabbitMQ, libvirt and QEMU of Debian."""

from pathlib import Path

import libvirt
import pytest

from kongming.hypervisor.connection import run_event_loop
from kongming.tests.systemd.machine import sh
from kongming.tests.testbed.guest import destroy, start_guest

PACKAGES = (
    "rabbitmq-server libvirt-daemon-system libvirt-clients qemu-system-x86 mariadb-server curl"
)


@pytest.fixture(scope="session", autouse=True)
def machine():
    """What a compute host has before Kongming is installed, and a controller besides."""
    assert Path("/run/systemd/system").is_dir(), "systemd is not the init of this machine"
    run_event_loop()
    sh("apt-get update", f"apt-get install {PACKAGES}", "systemctl start rabbitmq-server")


@pytest.fixture(scope="session")
def guest():
    """A running guest of the machine's libvirt."""
    uri = "qemu:///system"
    domain = start_guest(libvirt.open(uri), "instance-00000001", vcpus=2)
    yield domain
    # libvirtd was restarted meanwhile.
    destroy(libvirt.open(uri).lookupByUUIDString(domain.UUIDString()))
