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

"""What can be set on a guest: the targets, and their values.

Desired, observed and baseline are all mappings target → value, so that they can be compared for
any kind of target.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
import enum
from typing import Any, NamedTuple, Self

from kongming.allocation.cpuset import CpuSet

#: The kernel's default period, also that of a percentage, in µs.
PERIOD_US = 100_000


class Aspect(enum.IntEnum):
    """The kinds of targets, in the order in which they are set.

    Memory occurs last: moving it takes longest and can't be undone.

    :ivar noun: names one target of this kind.
    :ivar label: names what is set.
    :ivar json_name: the field of an allocation's JSON form.
    :ivar is_numbered: whether a guest has several, each with a number.
    """

    VCPU = 1, "vCPU", "vCPU pins", "vcpu_pinning", True
    EMULATOR = 2, "emulator", "emulator pin", "emulator_pinning", False
    IOTHREAD = 3, "iothread", "iothread pins", "iothread_pinning", True
    SHARES = 4, "CPU shares", "CPU shares", "cpu_shares", False
    QUOTA = 5, "vCPU quota", "vCPU quota", "vcpu_quota", False
    MEMORY = 6, "memory", "memory nodes", "numa_nodes", False

    noun: str
    label: str
    json_name: str
    is_numbered: bool

    def __new__(cls, order: int, noun: str, label: str, json_name: str, is_numbered: bool) -> Self:
        """Make one row of the table; the order is its value."""
        made = int.__new__(cls, order)
        made._value_ = order
        made.noun, made.label, made.json_name = noun, label, json_name
        made.is_numbered = is_numbered
        return made


#: The aspects whose value is a set of host CPUs.
CPU_ASPECTS = frozenset({Aspect.VCPU, Aspect.EMULATOR, Aspect.IOTHREAD})


class Target(NamedTuple):
    """One thing that can be set.

    :ivar number: of the vCPU or iothread; 0 for a target that a guest has once.
    """

    aspect: Aspect
    number: int = 0

    def __str__(self) -> str:
        if self.aspect.is_numbered:
            return f"{self.aspect.noun} {self.number}"
        return self.aspect.noun


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


#: Without a limit the period has no meaning: there is only one such value.
NO_QUOTA = Quota(None)

#: A cpuset, a node set, shares or a quota, depending on the aspect.
Value = CpuSet | int | Quota

EMULATOR = Target(Aspect.EMULATOR)
SHARES = Target(Aspect.SHARES)
QUOTA = Target(Aspect.QUOTA)
MEMORY = Target(Aspect.MEMORY)


def vcpu(number: int) -> Target:
    """Return the target of one vCPU."""
    return Target(Aspect.VCPU, number)


def iothread(number: int) -> Target:
    """Return the target of one iothread."""
    return Target(Aspect.IOTHREAD, number)


def describe(items: Iterable[tuple[Target, str]]) -> str:
    """Describe targets shortly: those with the same text stand together.

    >>> describe([(Target(Aspect.VCPU, 0), "0-7 → 1"), (Target(Aspect.VCPU, 1), "0-7 → 1")])
    'vCPU pins 0-1: 0-7 → 1'
    """
    numbered: dict[Aspect, dict[str, list[int]]] = {}
    for (aspect, number), text in items:
        numbered.setdefault(aspect, {}).setdefault(text, []).append(number)
    return (
        "; ".join(
            f"{aspect.label} "
            + ", ".join(
                f"{CpuSet(numbers)}: {text}" if aspect.is_numbered else text
                for text, numbers in texts.items()
            )
            for aspect, texts in sorted(numbered.items())
        )
        or "nothing to change"
    )


def labels(targets: Iterable[Target]) -> str:
    """Return the labels of some targets.

    >>> labels([Target(Aspect.MEMORY), Target(Aspect.EMULATOR)])
    'emulator pin, memory nodes'
    """
    return ", ".join(aspect.label for aspect in sorted({each.aspect for each in targets}))


def to_json(values: Mapping[Target, Value]) -> dict[str, Any]:
    """Return values as JSON, in the names and units of an allocation's JSON form."""
    found: dict[str, Any] = {}
    for (aspect, number), value in sorted(values.items()):
        name = aspect.json_name
        written = quota_to_json(value) if isinstance(value, Quota) else value
        if isinstance(written, CpuSet):
            written = str(written)
        if aspect.is_numbered:
            found.setdefault(name, {})[str(number)] = written
        else:
            found[name] = written
    return found


def quota_to_json(quota: Quota) -> str | dict[str, int]:
    """Return a quota as JSON: ``"none"``, or an object with both in µs."""
    if quota.quota_us is None:
        return "none"
    return {"quota_us": quota.quota_us, "period_us": quota.period_us}
