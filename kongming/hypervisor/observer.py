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

"""Observation of a guest through the kernel: its threads and control groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import Quota, Target, Value
from kongming.hypervisor.aspects.table import ROWS
from kongming.hypervisor.cgroup import Groups
from kongming.hypervisor.files import reason
from kongming.hypervisor.process import QemuProcess, Thread
from kongming.hypervisor.reading import Part, Reading
from kongming.hypervisor.visibility import THREADS, Visibility, hidden_groups, hidden_threads

T = TypeVar("T")


class Observer:
    """Observes the QEMU process of one guest, as far as it is visible.

    :param process: None if it can't be found.
    :param visibility: registers whether the threads can be observed.
    :ivar groups: its control groups; None if it has none, or if they are not visible.
    """

    def __init__(
        self,
        instance_uuid: str,
        process: QemuProcess | None,
        groups: Groups | None,
        visibility: Visibility,
        *,
        hidden: str = "",
        hidden_groups: str = "",
    ) -> None:
        """Create an observer.

        :param hidden: why its process can't be found.
        :param hidden_groups: why its groups are not visible.
        """
        self._uuid = instance_uuid
        self._process = process
        self._visibility = visibility
        self._hidden = hidden
        self._hidden_groups = hidden_groups
        self.groups = groups

    @property
    def is_found(self) -> bool:
        """Whether its process was found, and its threads are visible."""
        return self._process is not None and not self._hidden

    @property
    def hidden(self) -> str:
        """Why the guest, or part of it, can't be observed; empty if it can."""
        return self._hidden or self._hidden_groups

    def controls(self, has: Callable[[Groups], bool]) -> bool:
        """Return whether its groups meet a condition, as far as is known."""
        if self.groups is None:
            return self._process is None or bool(self._hidden_groups)
        return has(self.groups)

    def read(self, targets: Iterable[Target], nodes: CpuSet) -> dict[Target, Reading]:
        """Read targets.

        :param nodes: the host's NUMA nodes that have memory.
        :returns: those that are visible: a vCPU that is not plugged in has no thread, and only
            libvirt can read the shares.
        """
        if self._process is None:
            return {}
        state = _State(self._process, self._tasks, self._quotas)
        try:
            found = {
                what: _reading(values)
                for what in set(targets)
                if (values := ROWS[what.aspect].observe(what, state, nodes))
            }
        except (FileNotFoundError, ProcessLookupError):
            # The guest has just ended.
            return {}
        except OSError as error:
            self._hidden = reason(error)
        else:
            if state.was_read:
                self._hidden = ""
                self._visibility.regained(THREADS, self._uuid)
            return found
        self._visibility.lost(hidden_threads(self._hidden), self._uuid)
        return {}

    def cpus_above(self) -> dict[Path, CpuSet]:
        """Return the CPUs of its group and of those above, the outermost first."""
        return dict(self._of_groups("The CPUs", lambda groups: [*groups.cpus_above().items()]))

    def threads_of(self, what: Target) -> list[Thread]:
        """Return the visible threads of a vCPU, an iothread or the emulator."""
        if self._process is None:
            return []
        try:
            return _State(self._process, self._tasks, self._quotas).threads(what)
        except OSError:
            return []

    def move(self, thread: Thread, cpus: CpuSet) -> None:
        """Pin one of its threads, if this process has the right to; observe it to find out."""
        if self._process is not None:
            with suppress(OSError):
                self._process.move(thread, cpus)

    def memory_kib(self) -> dict[int, int] | None:
        """Return its memory on each node, in KiB; None if it can't be read."""
        try:
            return None if self._process is None else self._process.memory_kib()
        except OSError:
            return None

    def _quotas(self) -> list[tuple[int, Quota]]:
        return self._of_groups("The quotas", lambda groups: [*groups.vcpu_quotas().items()])

    def _tasks(self, what: Target) -> list[int]:
        """Return the threads of a target's group; none if they can't be listed."""
        return self._of_groups("The threads", lambda groups: groups.tasks(what), str(what))

    def _of_groups(self, what: str, read: Callable[[Groups], list[T]], of: str = "") -> list[T]:
        """Read something from its groups; nothing if they can't be read or have been removed."""
        part = f"{self._uuid}/{of}"
        if self.groups is None:
            return []
        gap = hidden_groups("", what)
        try:
            found = read(self.groups)
        except (FileNotFoundError, ProcessLookupError):
            return []
        except OSError as error:
            self._hidden_groups = reason(error)
        else:
            self._visibility.regained(gap.subject, part)
            return found
        self._visibility.lost(replace(gap, why=self._hidden_groups), part)
        return []


class _State:
    """A :class:`GuestState`; the threads are listed once, and only if needed.

    :ivar was_read: whether any thread was read.
    """

    def __init__(
        self,
        process: QemuProcess,
        tasks: Callable[[Target], list[int]],
        quotas: Callable[[], list[tuple[int, Quota]]],
    ) -> None:
        self._process = process
        self._tasks = tasks
        self._all: list[Thread] | None = None
        self.vcpu_quotas = quotas
        self.was_read = False

    def all_threads(self) -> list[Thread]:
        self.was_read = True
        if self._all is None:
            self._all = self._process.threads()
        return self._all

    def threads(self, what: Target) -> list[Thread]:
        """Return the threads of a target, by its control group, or else by their names.

        A group also has the kernel's own threads that work for the guest, and those that an
        iothread has started. But with version 1 a group that lost its CPUs is empty.
        """
        self.was_read = True
        return self._process.read_threads(self._tasks(what)) or [
            each for each in self.all_threads() if each.target == what
        ]


def _reading(values: Iterable[tuple[str, Value]]) -> Reading:
    """Return a reading with each different value once, named after the first part that has it."""
    first: dict[Value, str] = {}
    for name, value in values:
        first.setdefault(value, name)
    if len(first) == 1:
        return Reading.of(next(iter(first)))
    return Reading(tuple(Part(value, name) for value, name in first.items()))
