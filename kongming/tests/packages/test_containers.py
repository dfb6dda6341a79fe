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

"""The page about containers, typed as it is written: images built by Podman, a guest placed."""

from pathlib import Path
import re

import pytest

from kongming.tests.integration.conftest import broker
from kongming.tests.packages.conftest import APT
from kongming.tests.testbed.debian_machine import DebianMachine
from kongming.tests.testbed.guest import domain_xml, halting_firmware
from kongming.tests.testbed.pages import INSTALL, blocks, typed
from kongming.tests.testbed.process import free_port

__all__ = ["broker"]
PAGE = blocks(INSTALL / "containers.rst")
PACKAGES = (
    "podman crun netavark libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients"
    " qemu-system-x86 python3"
)
BASE = "docker.io/library/debian:{}-slim"
# No registry, no firewall, no control groups with limits, and no right to raise others.
PODMAN = """[containers]
netns = "host"
pids_limit = 0
default_ulimits = ["nofile=1024:1024", "nproc=8192:8192"]"""
CONF = """[DEFAULT]
host = compute-1
transport_url = {url}
[api]
auth_strategy = noauth"""
GUEST = "5f0c5b3e-0d4c-4c57-9c2e-8d6f5a1b2c3d"
IMAGES = {
    "kongming-notification-handler": "kongming-notification-handler",
    "kongming-executor": "kongming-executor",
    "kongming-conductor": "kongming-conductor",
    "kongming-api": "gunicorn",
}
EXECUTOR = "podman inspect --format '{{.State.Pid}}' kongming-executor"


def of(number):
    """Return what root types in a section of the page."""
    return typed(block for block in PAGE if block.section.startswith(f"{number}. "))


@pytest.fixture
def base(suite, tmp_path):
    """Debian's image, as an archive: a machine on which nothing else is."""
    with DebianMachine(suite, "base") as machine:
        machine.run(
            "mkdir /srv/base",
            # 1: a file has changed, as files of an overlayfs may seem to have.
            "tar -C / --one-file-system --exclude=./root/kongming --exclude=./srv"
            " -cf /srv/base/base.tar . || test $? = 1",
        )
        machine.get("/srv/base", tmp_path / "base")
    return tmp_path / "base/base.tar"


@pytest.fixture
def machine(base, tmp_path):
    firmware = tmp_path / "firmware"
    firmware.write_bytes(halting_firmware())
    guest = tmp_path / "guest.xml"
    guest.write_text(domain_xml("instance-00000001", GUEST, Path("/srv/firmware")))
    # QEMU runs as another user.
    firmware.chmod(0o644)
    with DebianMachine("trixie", "containers", systemd=True) as machine:
        machine.put([base, firmware, guest], "/srv")
        yield machine


def podman(suite):
    """Install it, and make Debian's image."""
    return (
        f"{APT} update",
        f"{APT} install {PACKAGES}",
        f"echo '{PODMAN}' > /etc/containers/containers.conf",
        # There may be an overlayfs below, where another one can't have its layers.
        "mkdir -p /var/lib/containers",
        "mount -t tmpfs -o size=8g containers /var/lib/containers",
        "mapfile -t way < <(env | grep -E '^(PIP|SSL|REQUESTS)_|_proxy=')",
        f'podman import -q "${{way[@]/#/--change=ENV }}" /srv/base.tar {BASE.format(suite)}',
    )


def test_the_page_leads_to_a_guest_that_containers_place(machine, suite, broker):
    configured = f"echo '{CONF.format(url=broker.transport_url())}' > /etc/kongming/kongming.conf"
    address = f"127.0.0.1:{free_port()}"
    # The root of a container can't be entered from a place that has its own by chroot.
    entered = f"nsenter --target $({EXECUTOR}) --root --mount --wd=/ env PATH=/opt/kongming/bin"
    changes = {
        "podman build": f"podman build --build-arg SUITE={suite}",
        "editor /etc/kongming/kongming.conf": configured,
        "podman exec kongming-executor": entered,
        # The machine's control groups lack controllers.
        "upgrade check": "upgrade check || test $? -lt 255",
        "systemctl restart libvirtd": "systemctl restart libvirtd; virsh create /srv/guest.xml",
        # All machines share one network.
        "kongming-db:/var/lib/kongming kongming-api": "kongming-db:/var/lib/kongming kongming-api"
        f" gunicorn --bind {address} kongming.wsgi.api:application",
    }

    def page(number):
        for step in of(number):
            for old, new in changes.items():
                step = step.replace(old, new)
            yield step

    client = (
        "podman run --rm kongming-api openstack --os-auth-type none --os-endpoint"
        f" http://{address} kongming"
    )
    output = machine.run(
        *podman(suite),
        *page(1),
        *(f"podman run --rm {image} {name} --version" for image, name in IMAGES.items()),
        *(
            f"fails podman run --rm {image} sh -c 'which pip || which gcc || which git'"
            for image in IMAGES
        ),
        "podman run --rm kongming-api id -u",
        *page(2),
        *page(3),
        f"timeout 60 bash -c 'until : < /dev/tcp/{address.replace(':', '/')}; do sleep 0.2; done'",
        f"timeout 60 bash -c 'until {client} host list -f value | grep compute-1; do :; done'",
        f"{client} allocation set {GUEST} --vcpu-pinning 1 --wait",
        f"grep -E 'Cap(Bnd|Eff)' /proc/$({EXECUTOR})/status",
        'for each in /proc/$(pgrep qemu)/task/*; do echo "$(cat $each/comm):'
        ' $(taskset -cp ${each##*/})"; done | grep ^CPU',
        "podman stop kongming-api kongming-conductor kongming-executor",
        "podman logs kongming-executor",
    )
    assert "\n9630\n" in output
    assert "the threads of its guests are observed" in output
    for kind in ("Bnd", "Eff"):
        # SYS_NICE and SYS_PTRACE.
        assert f"Cap{kind}:\t{1 << 23 | 1 << 19:016x}\n" in output
    assert re.findall(r"^CPU \d/TCG: .* list: (.*)", output, re.M) == ["1", "1"]
    assert output.endswith("Stopped\n")
