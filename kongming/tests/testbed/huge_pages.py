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

"""The host's pools of huge pages, one for each NUMA node: only for a virtual host."""

from __future__ import annotations

from pathlib import Path
import subprocess

from kongming.tests.testbed.granted import HUGE_PAGE_KIB
from kongming.tests.testbed.host_cpus import NODES

MOUNT = Path("/dev/hugepages")
POOL = f"hugepages/hugepages-{HUGE_PAGE_KIB}kB"


def reserve(pages: int) -> None:
    """Have so many huge pages on each node, and the file system that they are had from."""
    if not MOUNT.is_mount():
        MOUNT.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "hugetlbfs", "hugetlbfs", str(MOUNT)], check=True)
    for node in NODES.glob("node[0-9]*"):
        number = node / POOL / "nr_hugepages"
        number.write_text(str(pages))
        # The kernel takes what there is without an error.
        if int(number.read_text()) != pages:
            raise RuntimeError(f"{number}: {pages} huge pages can't be had")


def pools() -> dict[int, dict[str, int]]:
    """Each node's pool as the kernel reports it: ``nr_hugepages``, ``free_hugepages``, …"""
    return {
        int(node.name.removeprefix("node")): {
            setting.name: int(setting.read_text()) for setting in (node / POOL).iterdir()
        }
        for node in sorted(NODES.glob("node[0-9]*"))
    }
