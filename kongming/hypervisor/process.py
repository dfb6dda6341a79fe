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

"""The QEMU process of a guest, as the kernel tells of it.

What libvirt does not read from the kernel itself is read here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
import re

from kongming.cpuset import CpuSet
from kongming.hypervisor.files import read_text
from kongming.target import EMULATOR, Target, iothread, vcpu

PROC = Path("/proc")

_PAGES = re.compile(r"N(\d+)=(\d+)")
_PAGE_SIZE = re.compile(r"kernelpagesize_kB=(\d+)")
# The guest's memory where it is not anonymous; other files are QEMU's code.
_MEMORY_FILES = re.compile(r"file=(?:/memfd:|/dev/(?:shm|hugepages|zero)|\S*/libvirt/qemu/)|huge")
# libvirt has QEMU name its threads so.
_VCPU = re.compile(r"CPU (\d+)/\w+")
_IOTHREAD = re.compile(r"IO iothread(\d+)")


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread at one moment.

    :ivar name: as the kernel has it: at most 15 characters.
    :ivar cpus: the host CPUs that it may run on; those offline are left out.
    :ivar nodes: the NUMA nodes that it may take memory from.
    """

    id: int
    name: str
    cpus: CpuSet
    nodes: CpuSet

    @property
    def target(self) -> Target:
        """The target that it belongs to, by its name."""
        if number := _VCPU.fullmatch(self.name):
            return vcpu(int(number[1]))
        if number := _IOTHREAD.fullmatch(self.name):
            return iothread(int(number[1]))
        return EMULATOR

    def __str__(self) -> str:
        return f"thread {self.id}, {self.name}"


class QemuProcess:
    """One QEMU process; its methods raise OSError once it has ended.

    :ivar pid: its process id.
    """

    def __init__(self, pid: int, proc: Path = PROC) -> None:
        self.pid = pid
        self._proc = proc
        self._folder = proc / str(pid)

    def runs(self, instance_uuid: str) -> bool:
        """Tell whether it (still) runs this guest."""
        return self.guest() == instance_uuid

    def guest(self) -> str:
        """Return which guest it runs; empty if none, or if it has ended."""
        try:
            arguments = (self._folder / "cmdline").read_bytes()
        except OSError:
            return ""
        return arguments.partition(b"\0-uuid\0")[2].partition(b"\0")[0].decode(errors="replace")

    def has_vcpus(self) -> bool:
        """Tell whether it has a vCPU's thread: others may name a guest in their arguments, too."""
        try:
            names = [read_text(task / "comm") for task in (self._folder / "task").iterdir()]
        except OSError:
            return False
        return any(_VCPU.fullmatch(name.strip()) for name in names)

    def threads(self) -> list[Thread]:
        """Look at all of its threads; the main thread comes first."""
        ids = sorted(int(task.name) for task in (self._folder / "task").iterdir())
        return self.look_at(ids)

    def look_at(self, ids: Iterable[int]) -> list[Thread]:
        """Look at some threads; also at those that the kernel runs for this process.

        Those that have ended meanwhile are left out.
        """
        found = []
        for thread_id in ids:
            try:
                found.append(_thread(thread_id, read_text(self._proc / str(thread_id) / "status")))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return found

    def memory_kib(self) -> dict[int, int]:
        """Count the guest's memory on each NUMA node, in KiB.

        It takes the kernel a while for a large guest, and needs the right to
        trace the process (CAP_SYS_PTRACE).

        :raises PermissionError: without that right.
        """
        nodes: Counter[int] = Counter()
        with (self._folder / "numa_maps").open() as maps:
            for line in maps:
                size = _PAGE_SIZE.search(line)
                if size and (" anon=" in line or _MEMORY_FILES.search(line)):
                    for node, pages in _PAGES.findall(line):
                        nodes[int(node)] += int(pages) * int(size[1])
        return dict(sorted(nodes.items()))


class Processes:
    """Finds the QEMU process of each guest, and remembers it."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._known: dict[str, QemuProcess] = {}

    def find(self, instance_uuid: str) -> QemuProcess | None:
        """Find the process of a guest; None if there is none to be seen."""
        known = self._known.get(instance_uuid)
        if known is not None and known.runs(instance_uuid):
            return known
        return self._look_for(instance_uuid)

    def _look_for(self, instance_uuid: str) -> QemuProcess | None:
        """Look through the processes until it is found; remember all that are passed.

        So many guests that are new at once take one look, not one each.
        """
        pids = {int(entry.name) for entry in self._proc.iterdir() if entry.name.isdecimal()}
        passed: dict[str, QemuProcess] = {}
        # A guest that was just started is among the last.
        for pid in sorted(pids, reverse=True):
            process = QemuProcess(pid, self._proc)
            guest = process.guest()
            if guest and guest not in passed and process.has_vcpus():
                passed[guest] = process
            if instance_uuid in passed:
                break
        still = {
            guest: process
            for guest, process in self._known.items()
            if process.pid in pids and guest != instance_uuid
        }
        self._known = still | passed
        return passed.get(instance_uuid)


def _thread(thread_id: int, status: str) -> Thread:
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    try:
        return Thread(
            thread_id,
            fields["Name"],
            CpuSet.parse(fields["Cpus_allowed_list"]),
            CpuSet.parse(fields["Mems_allowed_list"]),
        )
    except KeyError as error:
        raise OSError(f"the kernel does not tell {error} of thread {thread_id}") from None
