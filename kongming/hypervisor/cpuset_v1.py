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

"""Giving back to control groups of version 1 the CPUs that were offline.

When a CPU goes offline the kernel takes it out of every cpuset for good, and
libvirt can't pin any guest to it once it is back: the groups above are too
narrow. With version 2 the kernel does all this by itself.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
import re

from kongming import exception
from kongming.cpuset import CpuSet

CGROUP = Path("/sys/fs/cgroup")
PROC = Path("/proc")

# The groups of a guest's threads: what these have is libvirt's to set.
_OF_THREADS = re.compile(r"emulator|(vcpu|iothread)\d+")


def widen(pid: int, cpus: CpuSet, *, proc: Path = PROC, cgroup: Path = CGROUP) -> bool:
    """Let the groups above those of a guest's threads have ``cpus``.

    :param pid: of the guest's QEMU process.
    :param cpus: CPUs that are online.
    :returns: whether any of the groups lacked any of them.
    :raises Failed: if we may not write there; it says what to write.
    """
    widened = False
    for folder in _above(proc / str(pid) / "cgroup", cgroup):
        has = _read(folder / "cpuset.cpus")
        if cpus - has:
            _write(folder / "cpuset.cpus", CpuSet(has | cpus))
            widened = True
    return widened


def _above(groups: Path, cgroup: Path) -> list[Path]:
    """Give the groups above those of the threads, the outermost first; not the root.

    A group that lost all its CPUs has lost its threads, too: to the one above.
    """
    for line in groups.read_text().splitlines():
        _number, controllers, group = line.split(":", 2)
        if "cpuset" in controllers.split(","):
            names = PurePosixPath(group.lstrip("/")).parts
            if names and _OF_THREADS.fullmatch(names[-1]):
                names = names[:-1]
            return [
                (cgroup / controllers).joinpath(*names[:length])
                for length in range(1, len(names) + 1)
            ]
    return []


def _read(path: Path) -> CpuSet:
    text = path.read_text().strip()
    return CpuSet.parse(text) if text else CpuSet()


def _write(path: Path, cpus: CpuSet) -> None:
    try:
        path.write_text(str(cpus))
    except OSError as error:
        raise exception.Failed(
            f"the kernel took CPUs out of {path} while they were offline, and they can't be "
            f"given back ({error.strerror}): write {cpus} to it as root, or let this service "
            "(CAP_DAC_OVERRIDE)"
        ) from error
