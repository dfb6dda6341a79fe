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

"""The allocation: what is requested for one instance. An immutable value.

It has neither the source of the request nor the state of the guest or its host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from kongming import exception
from kongming.allocation import target
from kongming.allocation.cpuset import CpuSet, listed
from kongming.allocation.pinning import Pinning
from kongming.allocation.target import NO_QUOTA, Quota, Target, Value
from kongming.allocation.windows import Window


@dataclass(frozen=True, slots=True)
class Allocation:
    """What is requested for one instance; None means "not requested".

    An allocation without a request (it is false) returns the guest to its baseline.

    :ivar vcpu_pinning: host CPUs of the vCPUs.
    :ivar emulator_pinning: host CPUs of QEMU's own threads.
    :ivar iothread_pinning: host CPUs of the iothreads.
    :ivar numa_nodes: host NUMA nodes of the guest's memory.
    :ivar cpu_shares: weight relative to other guests, in the kernel's unit.
    :ivar vcpu_quota: CPU time that each vCPU may use.
    :ivar windows: what applies instead at certain times; the last window in force counts.
    """

    vcpu_pinning: Pinning | None = None
    emulator_pinning: CpuSet | None = None
    iothread_pinning: Pinning | None = None
    numa_nodes: CpuSet | None = None
    cpu_shares: int | None = None
    vcpu_quota: Quota | None = None
    windows: tuple[Windowed, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.parts() or self.windows)

    def parts(self) -> dict[str, Any]:
        """Return what is requested outside of windows, by the name of the field."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        del found["windows"]
        return {name: value for name, value in found.items() if value is not None}

    def at(self, moment: datetime) -> Allocation:
        """Return the allocation in force at a moment, which has a time zone; it has no windows.

        :raises RequestInvalid: if it has a window that can't be read here.
        """
        if not self.windows:
            return self
        found = [each for each in self.windows if each.window.is_in_force(moment)]
        return self.during(found[-1]) if found else Allocation(**self.parts())

    def during(self, windowed: Windowed) -> Allocation:
        """Return the allocation while a window is in force."""
        return Allocation(**self.parts() | windowed.instead.parts())

    def resolve(self, vcpus: int, iothreads: CpuSet) -> dict[Target, Value]:
        """Return the value of each target of a guest; targets that the guest lacks are left out.

        :param vcpus: how many vCPUs the guest has.
        :param iothreads: the numbers of its iothreads.
        """
        desired: dict[Target, Value] = {}
        if self.vcpu_pinning is not None:
            pins = self.vcpu_pinning.resolve(CpuSet(range(vcpus)))
            desired |= {target.vcpu(number): cpus for number, cpus in pins.items()}
        if self.emulator_pinning is not None:
            desired[target.EMULATOR] = self.emulator_pinning
        if self.iothread_pinning is not None:
            pins = self.iothread_pinning.resolve(iothreads)
            desired |= {target.iothread(number): cpus for number, cpus in pins.items()}
        if self.cpu_shares is not None:
            desired[target.SHARES] = self.cpu_shares
        if self.vcpu_quota is not None:
            desired[target.QUOTA] = self.vcpu_quota
        if self.numa_nodes is not None:
            desired[target.MEMORY] = self.numa_nodes
        return desired

    def lacking(self, vcpus: int, iothreads: CpuSet) -> list[exception.Refused]:
        """Return a refusal for the vCPUs, and one for the iothreads, that a guest lacks."""
        found: list[exception.Refused] = []
        if self.vcpu_pinning and (missing := self.vcpu_pinning.missing(CpuSet(range(vcpus)))):
            found.append(
                exception.VcpuUnknown(
                    f"vCPU {listed(missing)} does not exist: the guest has {vcpus} vCPUs, "
                    f"0 to {vcpus - 1}; correct the request or resize the instance"
                )
            )
        if self.iothread_pinning and (missing := self.iothread_pinning.missing(iothreads)):
            there = f"has the iothreads {iothreads}" if iothreads else "has no iothreads"
            found.append(
                exception.IothreadUnknown(
                    f"iothread {listed(missing)} does not exist: the guest {there}; correct the "
                    "request"
                )
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, without parts that are not requested."""
        written = {name: _JSON[name][0](value) for name, value in self.parts().items()}
        if self.windows:
            written["windows"] = [each.to_json() for each in self.windows]
        return written

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Allocation:
        """Read what :meth:`to_json` returns, or returned under other rules."""
        there = {name: read for name, (_, read) in _JSON.items() if name in value}
        windows = tuple(Windowed.from_json(each) for each in value.get("windows", ()))
        return cls(**{name: read(value[name]) for name, read in there.items()}, windows=windows)


@dataclass(frozen=True, slots=True)
class Windowed:
    """What replaces parts of an allocation while a window is in force.

    :ivar instead: without windows of its own.
    """

    window: Window
    instead: Allocation

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form: the window's fields and the parts' side by side."""
        return {**asdict(self.window), **self.instead.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Windowed:
        """Read what :meth:`to_json` returns; the window is not checked."""
        texts = {name: value[name] for name in ("name", "start", "timezone") if name in value}
        if not all(isinstance(text, str) for text in texts.values()):
            raise TypeError("a field of a window is no text")
        # In JSON, 60.0 and 60 are the same.
        when = Window(**texts, duration_s=int(value["duration_s"]), checked=False)
        return cls(when, Allocation.from_json(value))


def _quota_from_json(value: str | Mapping[str, int]) -> Quota:
    return (
        NO_QUOTA
        if isinstance(value, str)
        else Quota(int(value["quota_us"]), int(value["period_us"]))
    )


_JSON: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "vcpu_pinning": (Pinning.to_json, Pinning.from_json),
    "emulator_pinning": (str, CpuSet.parse),
    "iothread_pinning": (Pinning.to_json, Pinning.from_json),
    "numa_nodes": (str, CpuSet.parse),
    "cpu_shares": (int, int),
    "vcpu_quota": (target.quota_to_json, _quota_from_json),
}
