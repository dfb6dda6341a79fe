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

"""The control groups that libvirt makes for a guest, and the groups above them.

libvirt has a group for the emulator's threads and one for each vCPU and iothread, in one group of
the domain. Above it are the operator's groups, such as ``machine.slice``.
"""

from __future__ import annotations

from dataclasses import dataclass
import errno
from pathlib import Path, PurePosixPath

from kongming import exception
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import NO_QUOTA, Aspect, Quota, Target
from kongming.hypervisor.files import read_as, read_ids
from kongming.hypervisor.kernel_files import CGROUP, PROC

_NAMES = {Aspect.VCPU: "vcpu{}", Aspect.IOTHREAD: "iothread{}", Aspect.EMULATOR: "emulator"}


@dataclass(frozen=True, slots=True)
class _Hierarchy:
    """A mounted hierarchy, as far as it concerns a guest.

    :ivar root: its mount point.
    :ivar domain: the names of the groups from the root to the domain's.
    """

    root: Path
    domain: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return self.root.joinpath(*self.domain)

    @property
    def above(self) -> list[Path]:
        """The domain's group and those above it, the outermost first; not the root."""
        return [
            self.root.joinpath(*self.domain[:length]) for length in range(1, len(self.domain) + 1)
        ]


@dataclass(frozen=True, slots=True)
class Groups:
    """The control groups of one guest.

    Methods raise OSError if a group does not exist any more because the guest has ended, or if it
    can't be read.

    :ivar version: of the control groups that libvirt uses for this guest, 1 or 2.
    """

    version: int
    _cpu: _Hierarchy | None
    _cpuset: _Hierarchy | None

    @property
    def folder(self) -> Path | None:
        """The domain's group, which contains the groups of its threads."""
        hierarchy = self._cpuset or self._cpu
        return None if hierarchy is None else hierarchy.folder

    @property
    def has_cpu(self) -> bool:
        """Whether the guest's CPU time can be controlled."""
        return self._cpu is not None

    @property
    def has_cpuset(self) -> bool:
        """Whether its CPUs and memory nodes can be controlled."""
        return self._cpuset is not None

    def tasks(self, target: Target) -> list[int]:
        """Return the ids of the threads in the group of a target; none if it has no group."""
        if self.folder is None:
            return []
        group = self.folder / _NAMES[target.aspect].format(target.number)
        try:
            return read_as(group / ("tasks" if self.version == 1 else "cgroup.threads"), _numbers)
        except FileNotFoundError:
            return []

    def vcpu_quotas(self) -> dict[int, Quota]:
        """Return the quota of each vCPU; empty if vCPUs have no groups."""
        if self._cpu is None:
            return {}
        groups = (
            (group.name.removeprefix("vcpu"), group) for group in self._cpu.folder.glob("vcpu*")
        )
        return {int(number): self._quota(group) for number, group in groups if number.isdecimal()}

    def _quota(self, group: Path) -> Quota:
        if self.version == 1:
            quota = read_as(group / "cpu.cfs_quota_us", int)
            period = read_as(group / "cpu.cfs_period_us", int)
            return NO_QUOTA if quota < 0 else Quota(quota, period)
        return read_as(group / "cpu.max", _maximum)

    def cpus_above(self) -> dict[Path, CpuSet]:
        """Return the CPUs of the domain's group and of those above it, the outermost first."""
        if self._cpuset is None:
            return {}
        name = "cpuset.cpus" if self.version == 1 else "cpuset.cpus.effective"
        paths = ((folder, folder / name) for folder in self._cpuset.above)
        return {folder: read_ids(path) for folder, path in paths if path.exists()}


def find(pid: int, *, proc: Path = PROC, cgroup: Path = CGROUP) -> Groups | None:
    """Find the groups of a guest by its QEMU process.

    :returns: None if libvirt made none for it.
    :raises OSError: if they are not visible here.
    """
    v1: dict[str, _Hierarchy] = {}
    v2: _Hierarchy | None = None
    made = False
    for controllers, group in read_as(proc / str(pid) / "cgroup", _lines):
        made = made or PurePosixPath(group).name == _NAMES[Aspect.EMULATOR]
        # Several may be mounted together, as cpu,cpuacct, with a link for each.
        roots = [cgroup / controllers, *(cgroup / each for each in controllers.split(","))]
        for root in roots:
            hierarchy = _Hierarchy(root, _domain(group))
            # The path of a group outside of the cgroup namespace begins with "..".
            if ".." in hierarchy.domain or not (hierarchy.folder / "emulator").is_dir():
                continue
            if not controllers:
                v2 = hierarchy
            v1 |= dict.fromkeys(controllers.split(","), hierarchy)
            break
    if "cpuset" in v1 or "cpu" in v1:
        return Groups(1, v1.get("cpu"), v1.get("cpuset"))
    if v2 is None and made and not v1:
        raise OSError(errno.ENOENT, "the guest's control groups are not mounted here", str(cgroup))
    if v2 is None:
        return None
    return Groups(
        2,
        v2 if (v2.folder / "emulator/cpu.max").exists() else None,
        v2 if (v2.folder / "emulator/cpuset.cpus").exists() else None,
    )


def restore(folder: Path, cpus: CpuSet) -> None:
    """Add CPUs that the kernel has removed from a group of version 1.

    :raises Failed: if the file can't be written; the message says what to write.
    """
    path = folder / "cpuset.cpus"
    wider = CpuSet(read_ids(path) | cpus)
    try:
        path.write_text(str(wider))
    except OSError as error:
        raise exception.Failed(
            f"the kernel removed CPU {cpus} from {path} while it was offline, and this service "
            f"can't restore it ({error.strerror}): write {wider} to that file as root, or give "
            "this service CAP_DAC_OVERRIDE"
        ) from error


def _lines(text: str) -> list[tuple[str, str]]:
    """Read the controllers of each hierarchy, and the group in it."""
    rows = [line.split(":", 2) for line in text.splitlines()]
    return [(controllers, group) for _number, controllers, group in rows]


def _numbers(text: str) -> list[int]:
    return [int(each) for each in text.split()]


def _maximum(text: str) -> Quota:
    quota_us, period_us = text.split()
    return NO_QUOTA if quota_us == "max" else Quota(int(quota_us), int(period_us))


def _domain(group: str) -> tuple[str, ...]:
    """Return the names from the root to the domain's group, by the main thread's group.

    With version 1, threads whose group has lost all its CPUs are in the domain's own.
    """
    names = PurePosixPath(group.lstrip("/")).parts
    return names[:-1] if names and names[-1] == _NAMES[Aspect.EMULATOR] else names
