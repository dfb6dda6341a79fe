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

"""CPUs that the kernel has removed from control groups of version 1.

When a CPU goes offline the kernel removes it from every cpuset permanently. Once it is online
again, libvirt can't pin any guest to it: the groups above are too narrow. CPUs whose removal was
observed are restored; CPUs that an operator left out are not. With version 2 the kernel restores
them itself.
"""

from __future__ import annotations

from collections.abc import Mapping
import logging
from pathlib import Path
import threading

from kongming.allocation.cpuset import CpuSet
from kongming.hypervisor import cgroup

LOG = logging.getLogger(__name__)

_NONE = CpuSet()
# More groups than a host has at once: some of them do not exist any more.
_MANY = 2_000


class LostCpus:
    """The CPUs that groups had and have lost. Any thread may call any method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._had: dict[Path, CpuSet] = {}
        self._lost: dict[Path, CpuSet] = {}

    def note(self, groups: Mapping[Path, CpuSet], online: CpuSet) -> None:
        """Register the present CPUs of groups.

        :param groups: from the outermost to the domain's.
        :param online: CPUs that a group had, and that are not online, are lost: a CPU may go
            offline right before the groups are read.
        """
        domains = list(groups)[-1:]
        above, above_lost = _NONE, _NONE
        with self._lock:
            if len(self._had) > _MANY:
                self._forget_removed()
            for folder, has in groups.items():
                lost = self._lost.pop(folder, _NONE) | (self._had.get(folder, has) - online)
                # libvirt creates the domain's group with the CPUs of the one above it.
                if folder not in self._had and has == above and folder in domains:
                    lost |= above_lost
                self._had[folder] = has
                above, above_lost = has, CpuSet(lost - has)
                if above_lost:
                    self._lost[folder] = above_lost

    def went_offline(self, cpus: CpuSet) -> None:
        """Register that CPUs have gone offline: the groups that had them lose them."""
        with self._lock:
            for folder, had in self._had.items():
                if lost := CpuSet(had & cpus):
                    self._lost[folder] = CpuSet(self._lost.get(folder, _NONE) | lost)

    def restorable(self, groups: Mapping[Path, CpuSet], cpus: CpuSet) -> CpuSet:
        """Return those CPUs that every group has, or has lost while they were offline."""
        with self._lock:
            for folder, has in groups.items():
                cpus = CpuSet(cpus & (has | self._lost.get(folder, _NONE)))
        return cpus

    def restore(self, groups: Mapping[Path, CpuSet], cpus: CpuSet) -> bool:
        """Restore lost CPUs in groups, the outermost group first.

        :param cpus: CPUs that are online.
        :returns: whether any was restored.
        :raises Failed: if a group's file can't be written.
        """
        restored = False
        for folder, has in groups.items():
            with self._lock:
                missing = CpuSet((cpus - has) & self._lost.get(folder, _NONE))
            if missing:
                cgroup.restore(folder, missing)
                LOG.info("CPU %s was restored in %s: it had been offline", missing, folder)
                with self._lock:
                    self._had[folder] = CpuSet(has | missing)
                    self._lost[folder] = CpuSet(self._lost.get(folder, _NONE) - missing)
                restored = True
        return restored

    def _forget_removed(self) -> None:
        for known in (self._had, self._lost):
            for folder in [each for each in known if not each.exists()]:
                del known[folder]
