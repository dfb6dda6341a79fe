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

"""The QEMU process of a guest, as the kernel shows it.

It has what libvirt does not read from the kernel itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
import errno
from functools import partial
import os
from pathlib import Path
import re

from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import EMULATOR, Target, iothread, vcpu
from kongming.hypervisor.files import read_as, read_text
from kongming.hypervisor.kernel_files import PROC

_PAGES = re.compile(r"N(\d+)=(\d+)")
_PAGE_SIZE = re.compile(r"kernelpagesize_kB=(\d+)")
# The guest's memory if it is not anonymous; other files are QEMU's code.
_MEMORY_FILES = re.compile(r"file=(?:/memfd:|/dev/(?:shm|hugepages|zero)|\S*/libvirt/qemu/)|huge")
# The thread names that libvirt makes QEMU use.
_VCPU = re.compile(r"CPU (\d+)/\w+")
_IOTHREAD = re.compile(r"IO iothread(\d+)")
_HIDEPID = re.compile(r"\bhidepid=([1-9]\w*|noaccess|invisible|ptraceable)")
#: Why a guest can't be observed if there is no better reason: it may also just have ended.
NOT_FOUND = "no process in /proc runs the guest: does libvirt run on another machine?"
# The kernel's initial PID namespace (PROC_PID_INIT_INO).
_FIRST_PIDS = "pid:[4026531836]"


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread at one moment.

    :ivar name: the kernel's name: at most 15 characters.
    :ivar cpus: the host CPUs that it may use, without those offline.
    :ivar nodes: the NUMA nodes that it may allocate memory on.
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
        """Return whether it (still) runs this guest."""
        return self.guest() == instance_uuid

    def guest(self) -> str:
        """Return the guest that it runs; empty if none, or if it has ended."""
        try:
            arguments = (self._folder / "cmdline").read_bytes()
        except OSError:
            return ""
        return arguments.partition(b"\0-uuid\0")[2].partition(b"\0")[0].decode(errors="replace")

    def has_vcpus(self) -> bool:
        """Return whether it has a vCPU thread: other processes, too, may name a guest."""
        try:
            names = [read_text(task / "comm") for task in (self._folder / "task").iterdir()]
        except OSError:
            return False
        return any(_VCPU.fullmatch(name.strip()) for name in names)

    def threads(self) -> list[Thread]:
        """Read all of its threads; the main thread is the first."""
        ids = sorted(int(task.name) for task in (self._folder / "task").iterdir())
        return self.read_threads(ids)

    def read_threads(self, ids: Iterable[int]) -> list[Thread]:
        """Read some threads; also those that the kernel runs for this process.

        Threads that have ended meanwhile are omitted.
        """
        found = []
        for thread_id in ids:
            try:
                found.append(
                    read_as(self._proc / str(thread_id) / "status", partial(_thread, thread_id))
                )
            except (FileNotFoundError, ProcessLookupError):
                continue
        return found

    def move(self, thread: Thread, cpus: CpuSet) -> None:
        """Pin one of its threads.

        :raises OSError: without the right to (CAP_SYS_NICE), or if /proc shows another PID
            namespace, where another thread may have that id.
        """
        if os.readlink(self._proc / "self") != str(os.getpid()):  # noqa: PTH115
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        os.sched_setaffinity(thread.id, cpus)

    def memory_kib(self) -> dict[int, int]:
        """Return the guest's memory on each NUMA node, in KiB.

        This takes the kernel a while for a large guest, and needs the right to trace the process
        (CAP_SYS_PTRACE).

        :raises PermissionError: without that right.
        """
        nodes: Counter[int] = Counter()
        with (self._folder / "numa_maps").open(errors="replace") as maps:
            for line in maps:
                size = _PAGE_SIZE.search(line)
                if size and (" anon=" in line or _MEMORY_FILES.search(line)):
                    for node, pages in _PAGES.findall(line):
                        nodes[int(node)] += int(pages) * int(size[1])
        return dict(sorted(nodes.items()))


class Processes:
    """Finds the QEMU process of each guest, and caches it."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._known: dict[str, QemuProcess] = {}

    def find(self, instance_uuid: str) -> QemuProcess | None:
        """Return the process of a guest; None if none is visible."""
        known = self._known.get(instance_uuid)
        if known is not None and known.runs(instance_uuid):
            return known
        return self._search(instance_uuid)

    def why_hidden(self) -> str:
        """Return why a guest that libvirt reports as running can't be found."""
        # Other guests are visible, so processes are not hidden.
        return NOT_FOUND if self._known else _why_hidden(self._proc)

    def _search(self, instance_uuid: str) -> QemuProcess | None:
        """Search the processes for a guest; cache all guests on the way.

        Thus many new guests need one search, not one each.
        """
        try:
            pids = {int(entry.name) for entry in self._proc.iterdir() if entry.name.isdecimal()}
        except OSError:
            return None
        passed: dict[str, QemuProcess] = {}
        # A guest that was just started has a high process id.
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


def _why_hidden(proc: Path) -> str:
    """Return why no process of a guest can be found."""
    try:
        names = {entry.name for entry in proc.iterdir()}
    except OSError as error:
        return f"{proc} can't be listed: {error.strerror}"
    if "self" not in names:
        return f"there is no {proc}: mount it"
    if (hides := _hides(proc)) is not None:
        return (
            f"{proc} is mounted with hidepid={hides}: mount it with gid= of a group of this "
            "service's user, or let the service see all processes (CAP_SYS_PTRACE)"
        )
    if has_own_pids(proc):
        return (
            "this service runs in its own PID namespace, which has no process of the guest: "
            "run its container in the host's (--pid=host)"
        )
    return NOT_FOUND


def _hides(proc: Path) -> str | None:
    """Return the hidepid= option of /proc; None if it hides nothing."""
    try:
        read_text(proc / "1/cmdline")
    except OSError:
        pass
    else:
        # Process 1 is root's: if it is visible, QEMU's are, too.
        return None
    found = None
    try:
        for line in read_text(proc / "self/mounts").splitlines():
            _source, place, kind, options, *_ = line.split(" ")
            if place == "/proc" and kind == "proc":
                found = _HIDEPID.search(options)
    except (OSError, ValueError):
        return None
    return found[1] if found else None


def has_own_pids(proc: Path = PROC) -> bool:
    """Return whether this process sees only some of the machine's processes."""
    try:
        return os.readlink(proc / "self/ns/pid") != _FIRST_PIDS  # noqa: PTH115
    except OSError:
        return False


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
        raise ValueError(f"it lacks {error}") from None
