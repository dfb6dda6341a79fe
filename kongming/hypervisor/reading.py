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

"""The observed value of one target: a value for each thread or group that it consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kongming.allocation.target import Value


@dataclass(frozen=True, slots=True)
class Part:
    """One thread or control group.

    :ivar name: which one it is; empty if the target has only one.
    """

    value: Value
    name: str = ""

    def __str__(self) -> str:
        return f"{self.value} ({self.name})" if self.name else str(self.value)


@dataclass(frozen=True, slots=True)
class Reading:
    """The observed values of a target; it has a value only if all of its parts have it.

    :ivar parts: at least one.
    :ivar by_kernel: whether the kernel shows them; otherwise they are configured in libvirt.
    """

    parts: tuple[Part, ...]
    by_kernel: bool = True

    @classmethod
    def of(cls, value: Value, *, by_kernel: bool = True) -> Reading:
        """Return the reading of a target that has only one part."""
        return cls((Part(value),), by_kernel)

    @property
    def common(self) -> Value | None:
        """The value that all parts have; None if they differ."""
        first = self.parts[0].value
        return first if all(part.value == first for part in self.parts) else None

    def first_that(self, differs: Callable[[Value], bool]) -> Part | None:
        """Return the first part whose value meets a condition; None if there is none."""
        return next((part for part in self.parts if differs(part.value)), None)
