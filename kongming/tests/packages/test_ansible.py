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


"""The Ansible role, on two machines with systemd, one of each release: all that it can do."""

from concurrent.futures import ThreadPoolExecutor
import json
import re
import subprocess

import pytest

from kongming.tests.packages.conftest import APT, AT, api_at, newer
from kongming.tests.testbed.debian_machine import DebianMachine
from kongming.tests.testbed.process import find_program, free_port

ANSIBLE = "/srv/ansible/bin"
NEWER = "/srv/newer"
PLAY = (
    "export ANSIBLE_DEPRECATION_WARNINGS=0 ANSIBLE_HOST_KEY_CHECKING=0 ANSIBLE_PIPELINING=1\n"
    "export LC_ALL=C.UTF-8\n"
    f"play() {{ {ANSIBLE}/ansible-playbook -i /srv/$1.json deploy/ansible/site.yml"
    ' --extra-vars "$2"; }'
)
LIBVIRT = "libvirt-daemon-system libvirt-daemon-driver-qemu"
# Where the kernel has them in version 1: the check finds what is mounted.
CONTROL_GROUPS = (
    "for name in cpu cpuset; do grep -qw $name /sys/fs/cgroup/cgroup.controllers ||"
    " { mkdir -p /sys/fs/cgroup/$name; mount -t cgroup -o $name no /sys/fs/cgroup/$name; }; done"
)
VERSION = "dpkg-query -W -f '${Version}\\n' kongming-compute"
_RECAP = re.compile(r"^(here|there) .* changed=(\d+) .* failed=(\d+)", re.M)


@pytest.fixture
def key(tmp_path):
    key = tmp_path / "key"
    keygen = find_program("ssh-keygen", "openssh-client")
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    return key


@pytest.fixture
def here(build, key, tmp_path):
    """The machine that Ansible runs on; it has the packages of both releases."""
    with DebianMachine("trixie", "ansible", systemd=True) as machine:
        machine.put([key], "/srv")
        for suite in ("bookworm", "trixie"):
            (tmp_path / suite).mkdir()
            machine.put(build(suite).glob("*.deb"), AT)
            machine.put(newer(build(suite), tmp_path / suite), NEWER)
        yield machine


@pytest.fixture
def there(key):
    """A machine that is reached by SSH."""
    with DebianMachine("bookworm", "ansible", systemd=True) as machine:
        machine.put([key.with_name("key.pub")], "/srv")
        yield machine


class Inventory:
    """Both machines."""

    def __init__(self, url, ssh_port):
        self._url = url
        self._ssh_port = ssh_port

    def write(self, name, *groups, check=True, config=None):
        """Return the command that writes an inventory.

        :param groups: groups of this machine; both are in that of compute hosts
        :param config: groups and options, besides those that are always there
        """
        reached = {
            "here": {"ansible_connection": "local"},
            "there": {
                "ansible_host": "127.0.0.1",
                # Without become: root is the same user.
                "ansible_user": "root",
                "ansible_port": self._ssh_port,
                "ansible_ssh_private_key_file": "/srv/key",
            },
        }
        hosts = {
            host: {
                **way,
                "ansible_python_interpreter": "/usr/bin/python3",
                "kongming_packages": AT,
                "kongming_check": check,
                "kongming_config": {
                    "DEFAULT": {"transport_url": self._url, "host": host},
                    "api": {"auth_strategy": "noauth"},
                    **(config or {}),
                },
            }
            for host, way in reached.items()
        }
        inventory = {group: {"hosts": {"here": hosts["here"]}} for group in groups}
        inventory["kongming_compute"] = {"hosts": hosts}
        return f"echo '{json.dumps(inventory)}' > /srv/{name}.json"


def runs(output):
    """Return what each run has changed, by host; none for a host where it has failed."""
    found = []
    for recap in output.split("PLAY RECAP")[1:]:
        found.append(
            {
                host: None if int(failed) else int(changed)
                for host, changed, failed in _RECAP.findall(recap)
            }
        )
    return found


NOTHING = {"here": 0, "there": 0}


def test_the_role_on_two_hosts(here, there, broker):
    ssh_port, alive_port, api_port = free_port(), free_port(), free_port()
    listens = "bash -c 'until : < /dev/tcp/127.0.0.1/{}; do sleep 0.5; done' 2> /dev/null"
    inventory = Inventory(broker.transport_url(), ssh_port)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            there.run,
            "mkdir -p /etc/ssh/sshd_config.d",
            f"echo 'Port {ssh_port}' > /etc/ssh/sshd_config.d/port.conf",
            "install -D -m 0600 /srv/key.pub /root/.ssh/authorized_keys",
            f"{APT} update",
            f"{APT} install openssh-server python3 {LIBVIRT}",
            CONTROL_GROUPS,
            # As long as the other machine is there.
            f"timeout 300 {listens.format(alive_port)}",
            f"while (: < /dev/tcp/127.0.0.1/{alive_port}) 2> /dev/null; do sleep 1; done",
            VERSION,
        )
        output = here.run(
            f"{APT} update",
            f"{APT} install python3-venv openssh-client {LIBVIRT}",
            CONTROL_GROUPS,
            f"python3 -m http.server --bind 127.0.0.1 -d /srv {alive_port} > /dev/null 2>&1 &",
            f"python3 -m venv {ANSIBLE.removesuffix('/bin')}",
            f"{ANSIBLE}/pip install -q ansible-core",
            *api_at(api_port),
            # A noauth API without Nova is an error of the check.
            inventory.write("all", "kongming_controllers", "kongming_hook", check=False),
            inventory.write("compute"),
            # The legacy trigger needs Nova's API, which does not respond.
            inventory.write(
                "legacy",
                check=False,
                config={"nova": {"auth_type": "none", "endpoint_override": "http://127.0.0.1:1/"}},
            ),
            # A nova.conf that has Nova send nothing: only the check finds it.
            "mkdir -p /etc/nova",
            "echo '[DEFAULT]' > /etc/nova/nova.conf",
            inventory.write(
                "silent", config={"guard": {"nova_config_file": "/etc/nova/nova.conf"}}
            ),
            f"timeout 300 {listens.format(ssh_port)}",
            PLAY,
            *["play all kongming_trigger=standalone"] * 2,
            f"timeout 60 {listens.format(api_port)}",
            "hosts() { /usr/lib/kongming/bin/openstack --os-auth-type none --os-endpoint"
            f" http://127.0.0.1:{api_port} kongming host list -f value; }}; export -f hosts",
            "timeout 60 bash -c 'until hosts | grep -c -w up | grep 2; do :; done'",
            f"play all 'kongming_trigger=standalone kongming_packages={NEWER}'",
            VERSION,
            *[f"play compute 'kongming_trigger=versioned kongming_packages={NEWER}'"] * 2,
            "fails systemctl is-active --quiet kongming-executor",
            *[f"play legacy 'kongming_trigger=legacy kongming_packages={NEWER}'"] * 2,
            "grep ^trigger /etc/kongming/kongming.conf",
            f"fails play silent 'kongming_packages={NEWER}'",
        )
        upgraded_there = running.result()
    installed, again, upgraded, versioned, same, legacy, as_legacy, stopped = runs(output)
    assert min(installed.values()) > 5
    assert min(upgraded.values()) > 0
    assert min(versioned.values()) > 0
    assert min(legacy.values()) > 0
    assert again == same == as_legacy == NOTHING
    assert "\n2\n" in output
    assert re.search(r"debian13\.1\n", output)
    assert upgraded_there.endswith("debian12.1\n")
    assert "trigger = legacy" in output
    # One host after the other: the first stops all.
    assert stopped == {"here": None}
