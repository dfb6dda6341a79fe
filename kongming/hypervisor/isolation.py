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

"""Isolated CPUs: the kernel does not balance threads over them.

A thread stays on the isolated CPU on which it began, whatever else runs there. So a set of them is
bad for a guest's vCPUs: all may end up on the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
import os

from kongming.allocation.cpuset import CpuSet
from kongming.hypervisor.kernel_files import KernelFiles


def isolated_cpus(files: KernelFiles) -> CpuSet:
    """Return the CPUs that are isolated by boot parameters (isolcpus, nohz_full) or by cpusets.

    A file that can't be read counts as empty.
    """
    booted = (f"{files.system}/cpu/{name}" for name in ("isolated", "nohz_full"))
    return CpuSet(chain(*(_ids(files, path) for path in booted), _by_cpusets(files)))


def _by_cpusets(files: KernelFiles) -> Iterator[int]:
    """Yield the CPUs of the partitions without load balancing."""
    root = str(files.cgroup)
    isolated = files.ids(f"{root}/cpuset.cpus.isolated")
    if _off(files, f"{root}/cpuset"):
        online = files.ids(f"{files.system}/cpu/online", needed=True) or CpuSet()
        yield from online - CpuSet(_balanced(files, f"{root}/cpuset"))
    elif isolated is not None:
        yield from isolated
    else:
        # Before Linux 6.8 no file lists all: a partition can only be below another one.
        yield from _below(files, root)


def _off(files: KernelFiles, group: str) -> bool:
    """Return whether a group of version 1 leaves load balancing to those below it."""
    return (files.text(f"{group}/cpuset.sched_load_balance") or "").strip() == "0"


def _balanced(files: KernelFiles, group: str) -> Iterator[int]:
    """Yield the CPUs over which the groups below one of version 1 are balanced."""
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
