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

"""What a guest really has, by the kernel's word: its threads and control groups are looked at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kongming import target
from kongming.cpuset import CpuSet
from kongming.hypervisor.cgroup import Groups
from kongming.hypervisor.process import QemuProcess, Thread
from kongming.hypervisor.reading import Part, Reading
from kongming.target import CPU_ASPECTS, Aspect, Target, Value


@dataclass(frozen=True, slots=True)
class Observer:
    """Looks at the QEMU process of one guest; methods raise OSError once it has ended.

    :ivar groups: its control groups; None if it has none, or if they can't be seen.
    """

    process: QemuProcess
    groups: Groups | None

    def read(self, targets: Iterable[Target], nodes: CpuSet) -> dict[Target, Reading]:
        """Look at targets.

        :param nodes: the host's NUMA nodes that have memory.
        :returns: those that can be seen: a vCPU that is not plugged in has no thread, and
            the shares are known to libvirt only.
        """
        wanted = set(targets)
        threads = _Threads(self.process, self.groups)
        found = {
            what: _reading((str(each), each.cpus) for each in of_target)
            for what in wanted
            if what.aspect in CPU_ASPECTS and (of_target := threads.of(what))
        }
        if target.MEMORY in wanted:
            found[target.MEMORY] = _reading(
                (str(each), CpuSet(each.nodes & nodes)) for each in threads.all()
            )
        if target.QUOTA in wanted and self.groups is not None:
            quotas = sorted(self.groups.vcpu_quotas().items())
            if quotas:
                found[target.QUOTA] = _reading((f"vCPU {vcpu}", each) for vcpu, each in quotas)
        return found

    def threads_of(self, what: Target) -> list[Thread]:
        """Return the threads of a vCPU, an iothread or the emulator."""
        return _Threads(self.process, self.groups).of(what)

    def iothreads(self) -> CpuSet:
        """Return the numbers of the iothreads that run."""
        return CpuSet(
            each.target.number
            for each in self.process.threads()
            if each.target.aspect is Aspect.IOTHREAD
        )


class _Threads:
    """The threads at one moment; they are listed once, and only if that is needed."""

    def __init__(self, process: QemuProcess, groups: Groups | None) -> None:
        self._process = process
        self._groups = groups
        self._all: list[Thread] | None = None

    def all(self) -> list[Thread]:
        if self._all is None:
            self._all = self._process.threads()
        return self._all

    def of(self, what: Target) -> list[Thread]:
        """Return the threads of a target: those of its group, or by their names.

        Groups know more: the kernel's own threads that work for the guest, and those that
        an iothread has started. But on version 1 one that lost its CPUs is empty.
        """
        ids = self._groups.tasks(what) if self._groups is not None else []
        return self._process.look_at(ids) or [each for each in self.all() if each.target == what]


def _reading(values: Iterable[tuple[str, Value]]) -> Reading:
    """Make a reading that has each different value once, with the first that has it."""
    first: dict[Value, str] = {}
    for name, value in values:
        first.setdefault(value, name)
    if len(first) == 1:
        return Reading.of(next(iter(first)))
    return Reading(tuple(Part(value, name) for value, name in first.items()))
