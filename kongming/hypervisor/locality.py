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
"""Whether libvirt's host is this machine: a URI may lead anywhere.

A name or an address may be this machine's, and a local socket may be forwarded. Host UUIDs and
names may be the same on two machines. But no other kernel has counted the same CPU time since it
booted, and libvirt reports it.
"""

from __future__ import annotations

from dataclasses import dataclass
import os
from typing import Any
from urllib.parse import urlsplit

import libvirt

from kongming.hypervisor.files import read_as
from kongming.hypervisor.kernel_files import KernelFiles
from kongming.hypervisor.libvirt_reading import DRIVER
from kongming.hypervisor.pool import is_alive

_EMBEDDED = "/embed"
_ALL_CPUS = -1
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
# The columns of /proc/stat that libvirt adds up: user and nice; system, irq and softirq.
_COUNTED = {"user": (0, 1), "kernel": (2, 5, 6)}


@dataclass(frozen=True, slots=True)
class Locality:
    """Where libvirt's host is.

    :ivar here: whether it is this machine.
    :ivar why: the evidence, or why it is only assumed.
    :ivar certain: whether there is evidence; a guest that is found in /proc is stronger evidence.
    :ivar has_processes: whether its guests are processes; those of the test driver are not.
    """

    here: bool
    why: str
    certain: bool = True
    has_processes: bool = True

    def __str__(self) -> str:
        where = "on this machine" if self.here else "on another machine"
        if not self.has_processes:
            where = "on no machine"
        return f"{where} ({self.why})" if self.certain else f"assumed to be {where} ({self.why})"


#: The locality if a process of a guest was found.
FOUND = Locality(here=True, why="the processes of its guests run here")


def locate(connection: Any, uri: str, files: KernelFiles) -> Locality:
    """Return where libvirt's host is, by libvirt and this kernel; raise libvirt's errors."""
    driver = connection.getType()
    if driver != DRIVER:
        why = f"libvirt's driver {driver} has no processes"
        return Locality(here=False, why=why, has_processes=False)
    parts = urlsplit(uri)
    if parts.path == _EMBEDDED:
        return Locality(here=True, why="the driver is in this process")
    try:
        before = _counted(files)
        reported = connection.getCPUStats(_ALL_CPUS)
        after = _counted(files)
        same = all(before[name] <= reported[name] // _TICK_NS <= after[name] for name in _COUNTED)
    except (OSError, KeyError):
        why = f"{files.proc}/stat can't be read"
    except libvirt.libvirtError:
        if not is_alive(connection):
            raise
        why = "libvirt does not report CPU time"
    else:
        if same:
            return Locality(here=True, why="libvirt reports the same CPU time")
        if _is_kernels(files):
            return Locality(here=False, why="libvirt reports another CPU time")
        why = f"{files.proc}/stat is not the kernel's, as with lxcfs"
    # The only evidence left is the URI.
    return Locality(not parts.hostname, f"{why}, and no guest has been found yet", certain=False)


def _counted(files: KernelFiles) -> dict[str, int]:
    """Return the CPU time since the boot, in ticks, as libvirt adds it up."""
    return read_as(f"{files.proc}/stat", _sums)


def _sums(text: str) -> dict[str, int]:
    name, *columns = text.partition("\n")[0].split()
    if name != "cpu" or len(columns) <= max(map(max, _COUNTED.values())):
        raise ValueError("no line of all CPUs")
    ticks = [int(each) for each in columns]
    return {each: sum(ticks[column] for column in of) for each, of in _COUNTED.items()}


def _is_kernels(files: KernelFiles) -> bool:
    """Return whether nothing is mounted over the file."""
    return (files.proc / "stat").stat().st_dev == files.proc.stat().st_dev
