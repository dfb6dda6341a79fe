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

"""The vCPU threads of a guest and their affinity, as the kernel tells it.

It asks nobody but /proc, on purpose: libvirt's word is checked against it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
import os
from pathlib import Path
import re

PROC = Path("/proc")
ONLINE = Path("/sys/devices/system/cpu/online")
VCPU_THREAD = re.compile(r"CPU (\d+)/(?:KVM|TCG)")


def vcpu_threads(instance_uuid: str) -> dict[int, int]:
    """The thread id of each vCPU; empty for a single-threaded guest.

    :raises LookupError: no QEMU process runs this guest
    """
    threads = {}
    for task in (process_folder(instance_uuid) / "task").iterdir():
        vcpu = VCPU_THREAD.fullmatch((task / "comm").read_text().rstrip("\n"))
        if vcpu:
            threads[int(vcpu.group(1))] = int(task.name)
    return dict(sorted(threads.items()))


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
    raise LookupError(f"the kernel does not tell the affinity of thread {thread}")


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


def process_folder(instance_uuid: str) -> Path:
    """Where /proc tells of a guest's QEMU process.

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
