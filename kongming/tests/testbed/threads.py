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

"""The vCPU threads of a guest and their affinity, as the kernel reports it.

It reads only /proc, on purpose: what libvirt reports is checked against it.
"""

from __future__ import annotations

from collections.abc import Iterable
import contextlib
from itertools import pairwise
import os
from pathlib import Path
import re

PROC = Path("/proc")
ONLINE = Path("/sys/devices/system/cpu/online")
CGROUP = Path("/sys/fs/cgroup")
VCPU_THREAD = re.compile(r"CPU (\d+)/(?:KVM|TCG)")
IOTHREAD = re.compile(r"IO iothread(\d+)")


def vcpu_threads(instance_uuid: str) -> dict[int, int]:
    """The thread id of each vCPU; empty for a single-threaded guest.

    :raises LookupError: no QEMU process runs this guest
    """
    return _threads(instance_uuid, VCPU_THREAD)


def iothreads(instance_uuid: str) -> dict[int, int]:
    """The thread id of each iothread.

    :raises LookupError: no QEMU process runs this guest
    """
    return _threads(instance_uuid, IOTHREAD)


def emulator_thread(instance_uuid: str) -> int:
    """The id of QEMU's main thread.

    :raises LookupError: no QEMU process runs this guest
    """
    return int(process_folder(instance_uuid).name)


def vhost_threads(instance_uuid: str) -> list[int]:
    """The ids of the kernel's threads that move data for a guest: vhost-net's and its kin.

    Newer kernels have them among the threads of the process, older ones beside it.

    :raises LookupError: no QEMU process runs this guest
    """
    name = f"vhost-{emulator_thread(instance_uuid)}"
    found = []
    for comm in PROC.glob("[0-9]*/task/[0-9]*/comm"):
        # It may end while we look.
        with contextlib.suppress(OSError):
            if comm.read_text().rstrip("\n") == name:
                found.append(int(comm.parent.name))
    return sorted(found)


def vcpu_quotas(instance_uuid: str) -> dict[int, tuple[int, int]]:
    """The quota, -1 for none, and the period of each vCPU, in µs.

    :raises LookupError: no QEMU process runs this guest
    """
    return {vcpu: _quota(thread) for vcpu, thread in vcpu_threads(instance_uuid).items()}


def vcpu_affinity(instance_uuid: str) -> dict[int, frozenset[int]]:
    """The CPUs that each vCPU may run on.

    :raises LookupError: no QEMU process runs this guest
    """
    threads = vcpu_threads(instance_uuid)
    return {vcpu: affinity(thread) for vcpu, thread in threads.items()}


def affinity(thread: int) -> frozenset[int]:
    """The CPUs that a thread may run on."""
    for line in (PROC / str(thread) / "status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Cpus_allowed_list":
            return cpu_list(value)
    raise LookupError(f"the kernel does not report the affinity of thread {thread}")


def is_realtime(thread: int) -> bool:
    """Whether the kernel lets no ordinary thread run in place of a thread that could."""
    return os.sched_getscheduler(thread) in (os.SCHED_FIFO, os.SCHED_RR)


def set_affinity(thread: int, cpus: Iterable[int]) -> None:
    """Move a thread behind libvirt's back, as taskset does."""
    os.sched_setaffinity(thread, cpus)


def online_cpus() -> frozenset[int]:
    return cpu_list(ONLINE.read_text())


def is_running(instance_uuid: str) -> bool:
    """Whether a QEMU process runs this guest."""
    try:
        process_folder(instance_uuid)
    except LookupError:
        return False
    return True


def _threads(instance_uuid: str, name: re.Pattern[str]) -> dict[int, int]:
    threads = {}
    for task in (process_folder(instance_uuid) / "task").iterdir():
        match = name.fullmatch((task / "comm").read_text().rstrip("\n"))
        if match:
            threads[int(match.group(1))] = int(task.name)
    return dict(sorted(threads.items()))


def _quota(thread: int) -> tuple[int, int]:
    for line in (PROC / str(thread) / "cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if "cpu" in controllers.split(","):
            folder = CGROUP / controllers / group.lstrip("/")
            quota, period = ((folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
            return int(quota.read_text()), int(period.read_text())
        if not controllers and (maximum := CGROUP / group.lstrip("/") / "cpu.max").exists():
            limit, length = maximum.read_text().split()
            return -1 if limit == "max" else int(limit), int(length)
    raise LookupError(f"the kernel does not report the CPU time of thread {thread}")


def process_folder(instance_uuid: str) -> Path:
    """Where /proc describes a guest's QEMU process.

    :raises LookupError: no QEMU process runs this guest
    """
    for folder in PROC.glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_text(errors="replace").split("\0")
        except OSError:
            # It ended while we looked.
            continue
        if ("-uuid", instance_uuid) in pairwise(arguments):
            return folder
    raise LookupError(f"no QEMU process runs instance {instance_uuid}: is the guest running?")


def cpu_list(written: str) -> frozenset[int]:
    """The CPUs of a list as the kernel writes it."""
    cpus: set[int] = set()
    for item in written.strip().split(","):
        first, _, last = item.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)
