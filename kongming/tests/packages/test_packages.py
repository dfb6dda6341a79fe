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

"""Debian packages: built, installed, used, upgraded and purged on each release of Debian."""

import subprocess

from kongming.tests.packages.conftest import APT, AT, DROP_IN, api_at, fields, newer
from kongming.tests.testbed.process import free_port

PACKAGES = {
    "kongming-api",
    "kongming-common",
    "kongming-compute",
    "kongming-conductor",
    "kongming-controller",
    "kongming-doc",
    "python3-kongming",
    "python3-kongmingclient",
}
UNITS = (
    "kongming-api",
    "kongming-conductor",
    "kongming-executor",
    "kongming-notification-handler",
)
PYTHON = "/usr/lib/kongming/bin/python"
NONE_OF = "fails {} -c 'import {}' 2> /dev/null"
CONF = """[DEFAULT]
state_path = /var/lib/kongming
transport_url = rabbit://u:p@127.0.0.1:1/
[api]
auth_strategy = noauth
"""
NOTHING_LEFT = (
    # The source tree is in /root, the packages are in /srv; systemd itself removes what services
    # have had in /var/tmp, a little later.
    "other=(-path /root -o -path /srv -o -path /var/tmp)",
    "find / -xdev \\( ${other[@]} \\) -prune -o -iname '*kongming*' -print | (! grep .)",
    "fails grep -rl kongming /etc --exclude={passwd,group,shadow,gshadow,subuid,subgid}{,-}",
)


def install(*packages):
    files = " ".join(f"{AT}/{package}_*.deb" for package in packages)
    return f"{APT} install {files}"


def test_the_source_and_all_packages_are_built(built, suite):
    names = {file.name for file in built.iterdir()}
    assert {"kongming_0.1.0.orig.tar.gz", "kongming_0.1.0-1.dsc"} <= names
    release = {"bookworm": "debian12", "trixie": "debian13"}[suite]
    versions = dict(map(fields, built.glob("*.deb")))
    assert versions == dict.fromkeys(PACKAGES, f"0.1.0-1+{release}")


def test_all_files_belong_to_root_and_none_to_two_packages(built):
    owner = {}
    for deb in built.glob("*.deb"):
        listed = subprocess.check_output(["dpkg-deb", "--contents", deb], text=True)
        for line in listed.splitlines():
            mode, user, *_, path = line.split(" -> ")[0].split(maxsplit=5)
            assert user == "root/root", line
            assert not set(mode) & {"s", "S", "t"}, line
            assert mode[0] == "l" or mode[8] != "w", line
            if mode[0] != "d":
                assert owner.setdefault(path, deb) == deb, line
    tops = {"/".join(path.split("/")[:3]) for path in owner}
    assert tops <= {"./etc/kongming", "./etc/logrotate.d", "./lib/systemd"} | {
        f"./usr/{each}" for each in ("bin", "lib", "share")
    }


def test_the_client_alone(machine):
    machine.run(install("python3-kongming", "python3-kongmingclient"))
    assert "kongming allocation set" in machine.run("openstack kongming --help")
    assert "--vcpu-pinning" in machine.run("openstack kongming allocation set --help")
    machine.run(
        "fails getent passwd kongming",
        "fails test -e /etc/kongming",
        *(NONE_OF.format(PYTHON, each) for each in ("oslo_messaging", "falcon", "libvirt", "pip")),
    )
    machine.run(
        f"{APT} purge --autoremove python3-kongming python3-kongmingclient",
        *NOTHING_LEFT,
        "fails test -e /usr/bin/openstack",
        "fails test -e /var/lib/dpkg/alternatives/openstack",
    )


def test_the_client_beside_that_of_debian(machine):
    machine.run(
        install("python3-kongming", "python3-kongmingclient"),
        f"{APT} install python3-openstackclient",
        "test ! -L /usr/bin/openstack",
        "openstack --version",
        "/usr/lib/kongming/bin/openstack kongming allocation set --help",
        f"{APT} purge python3-kongming python3-kongmingclient",
        "openstack --version",
    )


def test_a_compute_host_has_no_module_of_controllers(machine):
    machine.run(
        install("python3-kongming", "kongming-common", "kongming-compute"),
        f"{PYTHON} -c 'import libvirt; print(libvirt.getVersion())'",
        *(NONE_OF.format(PYTHON, each) for each in ("falcon", "alembic", "keystonemiddleware")),
        "kongming-notification-handler --version",
        "kongming-executor --version",
        "id -nG kongming | grep -w libvirt",
        "fails test -e /etc/libvirt/hooks",
        "test -x /usr/share/kongming/libvirt/kongming-libvirt-hook",
    )
    status = machine.run("kongming-status --role executor upgrade check || test $? -lt 255")
    assert "kongming (kongming-executor.service)" in status
    assert "a fault of Kongming" not in status


def test_a_controller_serves_the_api_and_all_is_upgraded_and_purged(machine, built, tmp_path):
    machine.run(
        install("python3-kongming*", "kongming-*"),
        f"{APT} install logrotate",
        *(f"{unit} --version" for unit in UNITS if unit != "kongming-api"),
        "kongming-manage --version",
        "kongming-status --version",
        f"fails grep -rl debian/build {PYTHON.removesuffix('/bin/python')}",
        "logrotate --debug /etc/logrotate.d/kongming-common",
        "find /etc/systemd -name 'kongming*' | (! grep .)",
    )
    assert machine.run("getent passwd kongming").split(":")[5] == "/var/lib/kongming"
    shown = machine.run("stat -c '%a %U %G' /etc/kongming /etc/kongming/kongming.conf")
    assert shown.splitlines() == ["750 root kongming", "640 root kongming"]
    for unit in UNITS:
        page = "" if unit == "kongming-api" else f"test -e /usr/share/man/man1/{unit}.1.gz"
        output = machine.run(f"systemd-analyze verify --man=no {unit}.service 2>&1", page)
        assert "kongming" not in output
    machine.put(newer(built, tmp_path), "/srv/newer")
    port = free_port()
    conf = CONF.replace("\n", "\\n")
    output = machine.run(
        f"printf '{conf}' > /etc/kongming/kongming.conf",
        "install -d -o kongming -g kongming /var/lib/kongming",
        "runuser -u kongming -- kongming-manage db sync",
        *api_at(port),
        "systemctl enable --now kongming-api",
        "process=$(systemctl show -P MainPID kongming-api)",
        f"client='openstack --os-auth-type none --os-endpoint http://127.0.0.1:{port}'",
        "$client kongming allocation list -f json",
        f"{APT} install /srv/newer/*.deb",
        f"printf '{conf}' | diff - /etc/kongming/kongming.conf",
        "timeout 60 bash -c 'until systemctl is-active kongming-api; do sleep 0.1; done'",
        "fails test $process = $(systemctl show -P MainPID kongming-api)",
        "$client kongming allocation list -f json",
        f"rm -r {DROP_IN}",
        f"{APT} purge --autoremove {' '.join(PACKAGES)}",
        *NOTHING_LEFT,
        "getent passwd kongming",
    )
    assert output.count("[]") == 2
