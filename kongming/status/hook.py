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

"""Check whether guests that arrive from other hosts are released from their former placement."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path

from oslo_config import cfg
from oslo_upgradecheck.upgradecheck import Result

from kongming.status import host
from kongming.status.finding import doubtful, good
from kongming.status.observation import NOT_CHECKED

FOLDER = Path("/etc/libvirt/hooks/qemu.d")
NAME = "kongming-libvirt-hook"

_PROC = Path("/proc")
_DAEMONS = frozenset({"libvirtd", "virtqemud"})
_WITHOUT = (
    "a guest that Kongming has placed can't be migrated to this host, or restored on it, if "
    "this host lacks one of its CPUs or NUMA nodes"
)


def check(conf: cfg.ConfigOpts) -> Iterator[Result]:
    """Check the hook in libvirt's folder."""
    with host.opened(conf) as hypervisor:
        if hypervisor is None:
            yield good(NOT_CHECKED)
        elif not hypervisor.locality().here:
            yield good(f"not checked: libvirt is {hypervisor.locality()}")
        else:
            yield check_folder(FOLDER, _PROC)


def check_folder(folder: Path, proc: Path) -> Result:
    """Check whether libvirt runs the hook in a folder."""
    hook = folder / NAME
    try:
        found = hook.stat()
    except FileNotFoundError:
        return doubtful(
            f"{hook} does not exist: {_WITHOUT}. Install it, mode 0755, and restart libvirtd"
        )
    except OSError as error:
        return doubtful(f"{hook} can't be checked ({error.strerror}); check that it exists")
    if not found.st_mode & 0o100:
        return doubtful(f"{hook} is not executable: {_WITHOUT}; run 'chmod 0755 {hook}'")
    started = _libvirt_started(proc)
    if started is None:
        return good(f"{hook} exists; when libvirtd started is unknown here")
    # The boot is known in whole seconds: the start may have been up to one later.
    if found.st_ctime > started + 1:
        return doubtful(
            f"{hook} was installed after libvirtd started, and libvirtd reads hooks only when it "
            "starts: restart libvirtd; guests keep running"
        )
    return good(f"{hook} exists")


def _libvirt_started(proc: Path) -> float | None:
    """Return when libvirt's daemon started, in seconds since the epoch; None if unknown."""
    try:
        pids = [entry for entry in proc.iterdir() if entry.name.isdecimal()]
        booted = next(
            int(line.split()[1])
            for line in (proc / "stat").read_text().splitlines()
            if line.startswith("btime ")
        )
    except (OSError, ValueError, StopIteration):
        return None
    return max(
        (
            booted + ticks / os.sysconf("SC_CLK_TCK")
            for pid in pids
            if (ticks := _started(pid)) is not None
        ),
        default=None,
    )


def _started(process: Path) -> int | None:
    """Return when a libvirt daemon started, in ticks since boot; None if it is another program."""
    try:
        name, _, fields = (process / "stat").read_text().partition("(")[2].rpartition(")")
        return int(fields.split()[19]) if name in _DAEMONS else None
    except (OSError, ValueError, IndexError):
        return None
