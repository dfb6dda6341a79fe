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

"""What can be set on a guest: the targets, and the values that they take.

What is wanted, what is and the baseline all are mappings target → value, so
that they can be compared whatever they are about.
"""

from __future__ import annotations

from dataclasses import dataclass
import enum
from typing import NamedTuple

from kongming.cpuset import CpuSet

#: The kernel's default period, and the one that a percentage counts in, in µs.
PERIOD_US = 100_000


class Aspect(enum.IntEnum):
    """The kinds of targets, in the order in which they are set.

    Memory comes last: moving it takes longest and can't be taken back.
    """

    VCPU = 1
    EMULATOR = 2
    IOTHREAD = 3
    SHARES = 4
    QUOTA = 5
    MEMORY = 6


#: Those whose value is a set of host CPUs.
CPU_ASPECTS = frozenset({Aspect.VCPU, Aspect.EMULATOR, Aspect.IOTHREAD})


class Target(NamedTuple):
    """One thing that can be set.

    :ivar number: of the vCPU or iothread; 0 for what a guest has once.
    """

    aspect: Aspect
    number: int = 0

    def __str__(self) -> str:
        if self.aspect in _NUMBERED:
            return f"{_NAMES[self.aspect]} {self.number}"
        return _NAMES[self.aspect]


@dataclass(frozen=True, slots=True)
class Quota:
    """The CPU time that each vCPU may use.

    :ivar quota_us: µs in each period; None means no limit.
    :ivar period_us: the period, in µs.
    """

    quota_us: int | None
    period_us: int = PERIOD_US

    def __str__(self) -> str:
        if self.quota_us is None:
            return "none"
        return f"{self.quota_us}/{self.period_us} µs"


#: Without a limit the period means nothing: there is but one such value.
NO_QUOTA = Quota(None)

#: A cpuset, a node set, shares or a quota, as the aspect has it.
Value = CpuSet | int | Quota

EMULATOR = Target(Aspect.EMULATOR)
SHARES = Target(Aspect.SHARES)
QUOTA = Target(Aspect.QUOTA)
MEMORY = Target(Aspect.MEMORY)

_NUMBERED = frozenset({Aspect.VCPU, Aspect.IOTHREAD})
_NAMES = {
    Aspect.VCPU: "vCPU",
    Aspect.EMULATOR: "emulator",
    Aspect.IOTHREAD: "iothread",
    Aspect.SHARES: "CPU shares",
    Aspect.QUOTA: "vCPU quota",
    Aspect.MEMORY: "memory",
}


def vcpu(number: int) -> Target:
    """Give the target of one vCPU."""
    return Target(Aspect.VCPU, number)


def iothread(number: int) -> Target:
    """Give the target of one iothread."""
    return Target(Aspect.IOTHREAD, number)
