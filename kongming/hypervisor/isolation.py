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

"""Which CPUs are isolated: the kernel does not spread threads over them.

A thread stays on the one of them on which it began, whatever else runs there. So a set of
them serves a guest's vCPUs badly: they may all end up on the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
import os
from pathlib import Path

from kongming.cpuset import CpuSet
from kongming.hypervisor.files import read_ids, read_text


def isolated_cpus(system: Path, cgroup: Path) -> CpuSet:
    """Return the CPUs that are isolated from the boot on (isolcpus, nohz_full) or by cpusets.

    What can't be read counts as none.
    """
    booted = (system / "cpu" / name for name in ("isolated", "nohz_full"))
    return CpuSet(chain(*map(_ids, booted), _by_cpusets(system, cgroup)))


def _by_cpusets(system: Path, cgroup: Path) -> Iterator[int]:
    """Yield the CPUs of the partitions without load balancing."""
    told = cgroup / "cpuset.cpus.isolated"
    if _off(cgroup / "cpuset"):
        yield from _ids(system / "cpu/online") - CpuSet(_balanced(cgroup / "cpuset"))
    elif told.exists():
        yield from _ids(told)
    else:
        # Before Linux 6.8 nobody tells of all: a partition can only be below another one.
        yield from _below(cgroup)


def _off(group: Path) -> bool:
    """Tell whether a group of version 1 leaves load balancing to those below it."""
    try:
        return read_text(group / "cpuset.sched_load_balance").strip() == "0"
    except OSError:
        return False


def _balanced(group: Path) -> Iterator[int]:
    """Yield the CPUs over which the groups below one of version 1 have threads spread."""
    for folder in _folders(group):
        yield from _balanced(folder) if _off(folder) else _ids(folder / "cpuset.effective_cpus")


def _below(group: Path) -> Iterator[int]:
    for folder in _folders(group):
        try:
            partition = read_text(folder / "cpuset.cpus.partition").strip()
        except OSError:
            continue
        if partition == "isolated":
            yield from _ids(folder / "cpuset.cpus.effective")
        elif partition == "root":
            yield from _below(folder)


def _folders(group: Path) -> list[Path]:
    try:
        return [Path(entry) for entry in os.scandir(group) if entry.is_dir()]
    except OSError:
        return []


def _ids(path: Path) -> CpuSet:
    try:
        return read_ids(path)
    except OSError:
        return CpuSet()
