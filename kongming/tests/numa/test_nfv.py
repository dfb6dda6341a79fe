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

"""The example of the page for NFV, command by command as the page has them."""

import json
import os
from pathlib import Path
import re
import shlex
import subprocess
import sys
import textwrap

import pytest

from kongming.tests.integration.conftest import status
from kongming.tests.numa.conftest import TIMEOUT, threads_of
from kongming.tests.testbed import memory, threads
from kongming.tests.testbed.granted import Granted
from kongming.tests.testbed.guest import destroy
from kongming.tests.testbed.process import wait_until

PAGE = Path(__file__).parents[3] / "doc/source/user/nfv.rst"
BLOCK = re.compile(r"\.\. code-block:: console\n\n((?: +.*\n|\n)+)")
# What the page has in places that are others here, and Nova's client: it shows what it is given.
STANDS_IN = """
kongming-manage() { command kongming-manage --config-file "$KONGMING_CONF" "$@"; }
openstack() { printf '%s\\n' "$@"; }
"""
VNF, HOST = "vnf-1", "compute-1"
NOVA_CONF = "[compute]\ncpu_shared_set = 1-7\n"


@pytest.fixture
def daemon(cloud, tmp_path):
    (tmp_path / "nova.conf").write_text(NOVA_CONF)
    options = f"[guard]\nnova_config_file = {tmp_path / 'nova.conf'}\n"
    with cloud.daemon(host=HOST, options=options) as daemon:
        yield daemon


@pytest.fixture
def guest(cloud, tmp_path):
    """The page's VNF, in the cell that Nova chose for it."""
    guest = cloud.guest(
        granted=granted_by_nova(1, "4-7"),
        iothreads=1,
        vhost=True,
        persistent=True,
        firmware=tmp_path / "firmware",
    )
    yield guest
    destroy(guest.domain)


def steps(heading):
    """What is typed below a heading of the page, each with what is shown then."""
    _, _, section = PAGE.read_text().partition(f"\n{heading}\n===")
    section = re.split(r"\n===+\n", section, maxsplit=1)[0]
    found = []
    for block in BLOCK.findall(section):
        for line in re.sub(r"\\?\n {6}", "", textwrap.dedent(block)).strip("\n").splitlines():
            if line.startswith(("$ ", "# ")):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return [(command, "\n".join(shown)) for command, shown in found]


class Page:
    """One who follows the page."""

    def __init__(self, cloud, daemon, guest):
        self._cloud, self._guest = cloud, guest
        self._steps = iter(steps("Example"))
        self._properties = {}
        self._env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "KONGMING_CONF": str(daemon.conf),
            "vnf_1": guest.uuid,
        }

    def shows(self):
        """Type the next command; return what it shows and what the page shows for it."""
        command, shown = next(self._steps)
        return json.loads(self._type(command)), json.loads(shown)

    def sets(self):
        """Type the next command, which sets properties of the server."""
        command, _ = next(self._steps)
        typed = self._type(command).splitlines()
        assert typed[:3] == ["server", "set", VNF]
        assert typed[3::2] == ["--property"] * len(typed[4::2])
        self._properties |= dict(each.split("=", 1) for each in typed[4::2])
        self._cloud.nova.publish(self._guest.uuid, HOST, self._properties, "instance.update")

    def ends(self):
        """Return whether all of the page has been typed."""
        return next(self._steps, None) is None

    def _type(self, command):
        done = subprocess.run(
            ["bash", "-c", f"set -eo pipefail\n{STANDS_IN}\n{command}"],
            env=self._env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def granted_by_nova(node, cpus):
    """What Nova gives a guest of the page's flavor in a cell with these shared CPUs."""
    (flavor,) = (command for command, _ in steps("The flavor") if " create " in command)
    (properties,) = (command for command, _ in steps("The flavor") if " set " in command)
    assert {"hw:mem_page_size=large", "hw:numa_nodes=1"} <= set(shlex.split(properties))
    (vcpus,) = re.findall(r"--vcpus (\d+)", flavor)
    return Granted([cpus] * int(vcpus), nodes=[node], hugepages=True)


def wait_placed(guest, vcpus, others):
    """Wait until the vCPUs have these CPUs, in their order, and all other threads those."""
    expected = {f"vcpu {vcpu}": threads.cpu_list(each) for vcpu, each in enumerate(vcpus.split())}
    expected |= dict.fromkeys(("iothread 1", "emulator", "vhost 0"), threads.cpu_list(others))
    wait_until(lambda: threads_of(guest) == expected, TIMEOUT, f"the guest runs on {expected}")


def test_the_example_is_followed(cloud, daemon, guest):
    page = Page(cloud, daemon, guest)
    shown, expected = page.shows()
    assert shown == expected
    page.sets()
    wait_placed(guest, "4 5 6 7", others="4")
    page.sets()
    wait_placed(guest, "4 4 5 5", others="4")
    page.sets()
    wait_placed(guest, "4 5 6 7", others="4")
    guest.hard_reboot(granted=granted_by_nova(0, "1-3"))
    status(daemon, guest, "refused")
    shown, expected = page.shows()
    assert shown == expected
    wait_placed(guest, "1-3 1-3 1-3 1-3", others="1-3")
    page.sets()
    wait_placed(guest, "1 2 2 3", others="1")
    assert set(memory.memory_kib(guest.uuid, memory.FILE)) == {0}
    assert page.ends()
