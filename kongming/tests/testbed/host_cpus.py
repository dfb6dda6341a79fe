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

"""The host's CPUs and NUMA nodes, and taking CPUs away: only for a virtual host."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from pathlib import Path

from kongming.tests.testbed import threads
from kongming.tests.testbed.process import wait_until

CPUS = Path("/sys/devices/system/cpu")
NODES = Path("/sys/devices/system/node")
V1_CPUSETS = Path("/sys/fs/cgroup/cpuset")
TIMEOUT = 30


def node_cpus() -> dict[int, frozenset[int]]:
    """The online CPUs of each NUMA node."""
    return {
        int(folder.name.removeprefix("node")): threads.cpu_list((folder / "cpulist").read_text())
        for folder in sorted(NODES.glob("node[0-9]*"))
    }


@contextlib.contextmanager
def offline(cpu: int) -> Iterator[None]:
    """Take a CPU offline, and online at the end: it is left as the kernel leaves it then."""
    switch = CPUS / f"cpu{cpu}/online"
    switch.write_text("0")
    _settle()
    try:
        yield
    finally:
        switch.write_text("1")
        _settle()


def repair_v1_cpusets() -> None:
    """Give the groups back the CPUs that cgroup v1 took from them for good.

    All but those of a guest's threads: these are libvirt's to set.
    """
    everything = (V1_CPUSETS / "cpuset.cpus").read_text()
    for setting in sorted(V1_CPUSETS.rglob("cpuset.cpus"), key=lambda path: len(path.parts)):
        group = setting.parent
        if group != V1_CPUSETS and not group.name.startswith(("vcpu", "iothread", "emulator")):
            setting.write_text(everything)


def _settle() -> None:
    """Wait until the control groups know which CPUs are online: that comes later."""
    if V1_CPUSETS.exists():
        known = V1_CPUSETS / "cpuset.cpus"
        wait_until(
            lambda: threads.cpu_list(known.read_text()) == threads.online_cpus(),
            TIMEOUT,
            "the control groups know the online CPUs",
        )
