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


"""The Ansible role, on machines with systemd: all services, an upgrade, another trigger."""

import json
import re

import pytest

from kongming.tests.packages.conftest import APT, AT, api_at, newer
from kongming.tests.testbed.debian_machine import DebianMachine
from kongming.tests.testbed.process import free_port

ANSIBLE = "/srv/ansible/bin"
NEWER = "/srv/newer"
PLAY = (
    "export ANSIBLE_DEPRECATION_WARNINGS=0 LC_ALL=C.UTF-8\n"
    f"play() {{ {ANSIBLE}/ansible-playbook -i /srv/$1.json deploy/ansible/site.yml"
    ' --extra-vars "$2"; }'
)


@pytest.fixture
def machine(suite, built, tmp_path):
    with DebianMachine(suite, "ansible", systemd=True) as machine:
        machine.put(built.glob("*.deb"), AT)
        machine.put(newer(built, tmp_path), NEWER)
        yield machine


def inventory(url, *groups):
    """Write the inventory of one machine, which is in these groups."""
    configuration = {
        "DEFAULT": {"transport_url": url, "host": "compute-1"},
        "api": {"auth_strategy": "noauth"},
    }
    local = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "/usr/bin/python3",
        "kongming_packages": AT,
        # A noauth API without Nova is an error of the check.
        "kongming_check": False,
        "kongming_config": configuration,
    }
    return json.dumps({group: {"hosts": {"here": local}} for group in groups})


def changed(recaps):
    """Return how many tasks have changed something, run by run."""
    return [int(each) for each in re.findall(r"^here .* changed=(\d+) .* failed=0", recaps, re.M)]


def test_the_role_brings_all_services_and_a_second_run_changes_nothing(machine, broker):
    url, port = broker.transport_url(), free_port()
    all_groups = ("kongming_controllers", "kongming_compute", "kongming_hook")
    machine.run(
        f"{APT} update",
        f"{APT} install python3-venv libvirt-daemon-system libvirt-daemon-driver-qemu",
        f"python3 -m venv {ANSIBLE.removesuffix('/bin')}",
        f"{ANSIBLE}/pip install -q ansible-core",
        *api_at(port),
        f"echo '{inventory(url, *all_groups)}' > /srv/all.json",
        f"echo '{inventory(url, 'kongming_compute')}' > /srv/compute.json",
    )
    said = machine.run(
        PLAY,
        "play all kongming_trigger=standalone",
        "play all kongming_trigger=standalone",
        "openstack() { /usr/lib/kongming/bin/openstack --os-auth-type none"
        f' --os-endpoint http://127.0.0.1:{port} kongming "$@"; }}',
        f"timeout 60 bash -c 'until : < /dev/tcp/127.0.0.1/{port}; do sleep 0.2; done'",
        "for _ in $(seq 60); do openstack host list -f value | grep compute-1 && break; done",
    )
    first, second = changed(said)
    assert first > 5
    assert second == 0
    assert "compute-1" in said.splitlines()[-1]
    said = machine.run(
        PLAY,
        *[f"play all 'kongming_trigger=standalone kongming_packages={NEWER}'"] * 2,
        "dpkg-query -W -f '${Version}' kongming-compute",
    )
    first, second = changed(said)
    assert (first > 0, second) == (True, 0)
    assert said.endswith(".1")
    said = machine.run(
        PLAY,
        *[f"play compute 'kongming_trigger=versioned kongming_packages={NEWER}'"] * 2,
        "grep ^trigger /etc/kongming/kongming.conf",
        "fails systemctl is-active --quiet kongming-executor",
    )
    assert changed(said)[-1] == 0
    assert said.splitlines()[-1] == "trigger = versioned"
