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

"""A control group of the testbed's own, the same in each hierarchy.

libvirt names its groups after domain ids: two libvirtd would share them.
"""

from __future__ import annotations

import contextlib
from functools import partial
import os
from pathlib import Path
import signal
import uuid

from kongming.tests.testbed.process import wait_until

MOUNT = Path("/sys/fs/cgroup")
MOUNTS = Path("/proc/self/mounts")
CONTROLLERS = ("cpu", "cpuset")
PREFIX = "kongming-"
END_TIMEOUT = 10


class Cgroup:
    """Works with cgroup v1, v2 and both at once; its name differs from others."""

    def __init__(self) -> None:
        name = f"{PREFIX}{uuid.uuid4()}"
        mounts = [line.split() for line in MOUNTS.read_text().splitlines()]
        self._v1 = [Path(mount[1]) / name for mount in mounts if mount[2] == "cgroup"]
        self._v2 = [Path(mount[1]) / name for mount in mounts if mount[2] == "cgroup2"]
        self._lent: list[tuple[Path, str]] = []

    @property
    def groups(self) -> list[Path]:
        return [*self._v1, *self._v2]

    @property
    def leaves(self) -> list[Path]:
        """Where processes must stay: a v2 group has either processes or children."""
        return [group / "daemon" for group in self._v2]

    @property
    def homes(self) -> list[Path]:
        """What a process joins to be in the group for good."""
        return [*self._v1, *self.leaves]

    def controllers(self) -> set[str]:
        """Return the names of the controllers that the group has, once it is made."""
        v1 = {name for group in self._v1 for name in group.parent.name.split(",")}
        v2 = ((group / "cgroup.controllers").read_text().split() for group in self._v2)
        return v1.union(*v2)

    def create(self) -> None:
        for group in self._v1:
            group.mkdir(exist_ok=True)
            for setting in ("cpuset.cpus", "cpuset.mems"):
                if (group / setting).exists():
                    # A v1 cpuset is born empty and takes no process then.
                    (group / setting).write_text((group.parent / setting).read_text())
        for group in self._v2:
            # In this order: whoever takes the controllers back sees the group before.
            group.mkdir(exist_ok=True)
            self._lend_controllers(group.parent)
        for leaf in self.leaves:
            leaf.mkdir(exist_ok=True)

    def remove(self) -> None:
        """Kill all that runs in the group, then take the group away."""
        for group in self.groups:
            if group.exists():
                wait_until(partial(_emptied, group), END_TIMEOUT, f"{group} is empty")
        for subtree_control, controller in self._lent:
            # Somebody else may need it by now: another testbed, or whoever has it refused.
            if not any(subtree_control.parent.glob(f"{PREFIX}*")):
                with contextlib.suppress(OSError):
                    subtree_control.write_text(f"-{controller}")
        self._lent.clear()

    def _lend_controllers(self, root: Path) -> None:
        subtree_control = root / "cgroup.subtree_control"
        enabled = subtree_control.read_text().split()
        for controller in (root / "cgroup.controllers").read_text().split():
            if controller in CONTROLLERS and controller not in enabled:
                subtree_control.write_text(f"+{controller}")
                self._lent.append((subtree_control, controller))


def refusal() -> str | None:
    """Return why this machine lets us make no control group for guests; None if it does."""
    group = Cgroup()
    try:
        group.create()
        missing = [each for each in CONTROLLERS if each not in group.controllers()]
    except OSError as error:
        hint = "; root may make some" if os.geteuid() else ""
        return f"{MOUNT}: {error.strerror}{hint}"
    finally:
        group.remove()
    return f"no control group has the controller {missing[0]}" if missing else None


def _emptied(group: Path) -> bool:
    for folder, _, _ in os.walk(group, topdown=False):
        for process in _processes(Path(folder)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        # Refused as long as a process is still on its way out.
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    return not group.exists()


def _processes(group: Path) -> list[int]:
    try:
        return [int(line) for line in (group / "cgroup.procs").read_text().split()]
    except OSError:
        # A threaded v2 group has none; the group above it has.
        return []
