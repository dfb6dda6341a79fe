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

"""CPUs that the kernel took out of control groups of version 1.

When a CPU goes offline the kernel takes it out of every cpuset for good, and libvirt
can't pin any guest to it once it is back: the groups above are too narrow. What was
seen to go so may be given back; what an operator left out is not ours to add. With
version 2 the kernel does all this by itself.
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
# More groups than a host has at once: some of them are gone.
_MANY = 2_000


class LostCpus:
    """Remembers what the groups had. Any thread may call any method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._had: dict[Path, CpuSet] = {}
        self._lost: dict[Path, CpuSet] = {}

    def note(self, groups: Mapping[Path, CpuSet], online: CpuSet) -> None:
        """Note what groups have now.

        :param groups: from the outermost to that of the domain.
        :param online: what they don't have any more, and is not among these, they have lost: a
            CPU may go offline right before they are looked at.
        """
        domains = list(groups)[-1:]
        above, above_lost = _NONE, _NONE
        with self._lock:
            if len(self._had) > _MANY:
                self._forget_gone()
            for folder, has in groups.items():
                lost = self._lost.pop(folder, _NONE) | (self._had.get(folder, has) - online)
                # libvirt makes the domain's group with what the one above it has.
                if folder not in self._had and has == above and folder in domains:
                    lost |= above_lost
                self._had[folder] = has
                above, above_lost = has, CpuSet(lost - has)
                if above_lost:
                    self._lost[folder] = above_lost

    def went_offline(self, cpus: CpuSet) -> None:
        """Note that CPUs have just gone offline: the groups that had them lose them."""
        with self._lock:
            for folder, had in self._had.items():
                if lost := CpuSet(had & cpus):
                    self._lost[folder] = CpuSet(self._lost.get(folder, _NONE) | lost)

    def returnable(self, groups: Mapping[Path, CpuSet], cpus: CpuSet) -> CpuSet:
        """Return those CPUs that every group has, or has lost by their being offline."""
        with self._lock:
            for folder, has in groups.items():
                cpus = CpuSet(cpus & (has | self._lost.get(folder, _NONE)))
        return cpus

    def give_back(self, groups: Mapping[Path, CpuSet], cpus: CpuSet) -> bool:
        """Give back to groups what they lost of these CPUs, the outermost group first.

        :param cpus: CPUs that are online.
        :returns: whether anything was given back.
        :raises Failed: if we may not write to a group.
        """
        given = False
        for folder, has in groups.items():
            with self._lock:
                missing = CpuSet((cpus - has) & self._lost.get(folder, _NONE))
            if missing:
                cgroup.give_back(folder, missing)
                LOG.info("CPU %s was restored in %s: it had been offline", missing, folder)
                with self._lock:
                    self._had[folder] = CpuSet(has | missing)
                    self._lost[folder] = CpuSet(self._lost.get(folder, _NONE) - missing)
                given = True
        return given

    def _forget_gone(self) -> None:
        for known in (self._had, self._lost):
            for folder in [each for each in known if not each.exists()]:
                del known[folder]
