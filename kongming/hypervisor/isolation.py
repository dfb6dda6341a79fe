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

from kongming.allocation.cpuset import CpuSet
from kongming.hypervisor.kernel_files import KernelFiles


def isolated_cpus(files: KernelFiles) -> CpuSet:
    """Return the CPUs that are isolated from the boot on (isolcpus, nohz_full) or by cpusets.

    What can't be read counts as none.
    """
    booted = (f"{files.system}/cpu/{name}" for name in ("isolated", "nohz_full"))
    return CpuSet(chain(*(_ids(files, path) for path in booted), _by_cpusets(files)))


def _by_cpusets(files: KernelFiles) -> Iterator[int]:
    """Yield the CPUs of the partitions without load balancing."""
    root = str(files.cgroup)
    told = files.ids(f"{root}/cpuset.cpus.isolated")
    if _off(files, f"{root}/cpuset"):
        online = files.ids(f"{files.system}/cpu/online", needed=True) or CpuSet()
        yield from online - CpuSet(_balanced(files, f"{root}/cpuset"))
    elif told is not None:
        yield from told
    else:
        # Before Linux 6.8 nobody tells of all: a partition can only be below another one.
        yield from _below(files, root)


def _off(files: KernelFiles, group: str) -> bool:
    """Tell whether a group of version 1 leaves load balancing to those below it."""
    return (files.text(f"{group}/cpuset.sched_load_balance") or "").strip() == "0"


def _balanced(files: KernelFiles, group: str) -> Iterator[int]:
    """Yield the CPUs over which the groups below one of version 1 have threads spread."""
    for folder in _folders(group):
        if _off(files, folder):
            yield from _balanced(files, folder)
        else:
            yield from _ids(files, f"{folder}/cpuset.effective_cpus")


def _below(files: KernelFiles, group: str) -> Iterator[int]:
    for folder in _folders(group):
        partition = (files.text(f"{folder}/cpuset.cpus.partition") or "").strip()
        if partition == "isolated":
            yield from _ids(files, f"{folder}/cpuset.cpus.effective")
        elif partition == "root":
            yield from _below(files, folder)


def _folders(group: str) -> list[str]:
    try:
        return [entry.path for entry in os.scandir(group) if entry.is_dir()]
    except OSError:
        return []


def _ids(files: KernelFiles, path: str) -> CpuSet:
    return files.ids(path) or CpuSet()
