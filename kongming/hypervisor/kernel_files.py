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
"""The kernel's files on this machine: any of them may be denied, missing or malformed.

A file that can't be read yields None, and is logged once. The service continues with what libvirt
reports, or without the file's content.
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

# These exist for each CPU, node, cache and group: they are reported together.
_NUMBERED = re.compile(r"(?<=/)(cpu|node|index)[0-9]+(?=/)")
#: The replacement for a file that can't be read.
USE_LIBVIRT = "what libvirt reports is used instead"
LEFT_OUT = "its content is left out"


class KernelFiles:
    """Reads the kernel's files below some folders. Any thread may call any method.

    :param visibility: registers what can't be read.
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
        self._cache: dict[str, tuple[Hashable, Any]] = {}

    def ids(self, path: str, *, needed: bool = False, instead: str = LEFT_OUT) -> CpuSet | None:
        """Return the ids that a file lists.

        :param needed: whether every kernel has it, with at least one id.
        :param instead: see :meth:`read`.
        """
        parse = _some_ids if needed else parse_ids
        return self.read(path, parse, needed=needed, instead=instead)

    def number(self, path: str) -> int | None:
        """Return the number in a file that not every kernel has."""
        return self.read(path, int)

    def text(self, path: str) -> str | None:
        """Return the content of a file that not every kernel has."""
        return self.read(path, str)

    def read(
        self,
        path: str,
        parse: Callable[[str], T],
        *,
        needed: bool = False,
        instead: str = LEFT_OUT,
    ) -> T | None:
        """Return the parsed content of a file; None if it can't be read or does not exist.

        :param parse: raises ValueError or RequestInvalid for content that the kernel does not
            write.
        :param needed: whether every kernel has it: only then it is reported as missing.
        :param instead: the replacement if it can't be read, for the log.
        """
        return self._tried(path, lambda: read_as(path, parse), needed, instead)

    def names(self, folder: str, *, instead: str = LEFT_OUT) -> list[str] | None:
        """Return the names in a folder; None if it can't be listed or does not exist."""
        return self._tried(folder, lambda: os.listdir(folder), False, instead)  # noqa: PTH208

    def cached(self, name: str, of: Hashable, make: Callable[[], T]) -> T:
        """Return a value, made again if its key has changed or files could not be read.

        :param name: of the value.
        :param of: the key.
        """
        cached = self._cache.get(name)
        if cached is not None and cached[0] == of:
            value: T = cached[1]
            return value
        failures = self._failures
        value = make()
        if failures == self._failures:
            self._cache[name] = (of, value)
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
