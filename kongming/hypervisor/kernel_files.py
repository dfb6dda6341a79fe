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
"""The kernel's files on this machine: any of them may be denied, missing or odd.

What can't be read is None to whoever asks, and told once: the rest goes on by libvirt's word, or
without what the file tells.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
import os
from pathlib import Path
import re
from typing import Any, TypeVar

from kongming.allocation.cpuset import CpuSet, parse_ids
from kongming.hypervisor.files import read_as
from kongming.hypervisor.visibility import Gap, Visibility

T = TypeVar("T")

SYSTEM = Path("/sys/devices/system")
CGROUP = Path("/sys/fs/cgroup")
PROC = Path("/proc")

# A host has one of these for each CPU, node, cache and group: they are told of together.
_NUMBERED = re.compile(r"(?<=/)(cpu|node|index)[0-9]+(?=/)")
#: What counts where a file can't be used.
LIBVIRTS = "what libvirt reports is used instead"
LEFT_OUT = "its content is left out"


class KernelFiles:
    """Reads the kernel's files below some folders. Any thread may call any method.

    :param visibility: is told what can't be read.
    :ivar system: ``/sys/devices/system``.
    :ivar cgroup: where the control groups are mounted.
    :ivar proc: ``/proc``.
    """

    def __init__(
        self,
        visibility: Visibility | None = None,
        *,
        system: Path = SYSTEM,
        cgroup: Path = CGROUP,
        proc: Path = PROC,
    ) -> None:
        self.visibility = visibility or Visibility()
        self.system, self.cgroup, self.proc = system, cgroup, proc
        self._failures = 0
        self._kept: dict[str, tuple[Hashable, Any]] = {}

    def ids(self, path: str, *, needed: bool = False, instead: str = LEFT_OUT) -> CpuSet | None:
        """Return the ids that a file lists.

        :param needed: whether it is there on every kernel, with at least one id.
        :param instead: see :meth:`read`.
        """
        parse = _some_ids if needed else parse_ids
        return self.read(path, parse, needed=needed, instead=instead)

    def number(self, path: str) -> int | None:
        """Return the number in a file that not every kernel has."""
        return self.read(path, int)

    def text(self, path: str) -> str | None:
        """Return what is in a file that not every kernel has."""
        return self.read(path, str)

    def read(
        self,
        path: str,
        parse: Callable[[str], T],
        *,
        needed: bool = False,
        instead: str = LEFT_OUT,
    ) -> T | None:
        """Return what is made of a file's text; None if it can't be read, or is not there.

        :param parse: raises ValueError or RequestInvalid of what the kernel does not write.
        :param needed: whether every kernel has it: only then is it told that it is not there.
        :param instead: what counts if it can't be read, for the log.
        """
        return self._tried(path, lambda: read_as(path, parse), needed, instead)

    def names(self, folder: str, *, instead: str = LEFT_OUT) -> list[str] | None:
        """Return what is in a folder; None if it can't be listed, or is not there."""
        return self._tried(folder, lambda: os.listdir(folder), False, instead)  # noqa: PTH208

    def keep(self, name: str, of: Hashable, make: Callable[[], T]) -> T:
        """Return what was made before of the same; it is made anew if files could not be read.

        :param name: of what is kept: one of each.
        """
        known = self._kept.get(name)
        if known is not None and known[0] == of:
            value: T = known[1]
            return value
        failures = self._failures
        value = make()
        if failures == self._failures:
            self._kept[name] = (of, value)
        return value

    def _tried(self, path: str, read: Callable[[], T], needed: bool, instead: str) -> T | None:
        subject = _NUMBERED.sub(r"\1*", path)
        try:
            found = read()
        except OSError as error:
            if needed or not isinstance(error, FileNotFoundError):
                self._failures += 1
                why, example = error.strerror or str(error), "" if subject == path else path
                self.visibility.lost(Gap(subject, "read", why, instead, example), path)
            return None
        self.visibility.regained(subject, path)
        return found


def _some_ids(text: str) -> CpuSet:
    if found := parse_ids(text):
        return found
    raise ValueError("it is empty")
