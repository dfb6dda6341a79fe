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

"""The allocation: what is wanted for one instance. An immutable value.

It says nothing of who asked, nor of what the guest or its host have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kongming import exception
from kongming.cpuset import CpuSet


@dataclass(frozen=True, slots=True)
class VcpuPinning:
    """The host CPUs on which the vCPUs of an instance may run.

    :ivar every: the cpuset of all vCPUs, or None if they are named singly.
    :ivar by_vcpu: vCPU number → cpuset, in ascending order of the vCPUs;
        vCPUs not named stay as they are. Empty if ``every`` is given.
    """

    every: CpuSet | None = None
    by_vcpu: tuple[tuple[int, CpuSet], ...] = ()

    @classmethod
    def of_map(cls, pins: Mapping[int, CpuSet]) -> VcpuPinning:
        """Make the pinning that names vCPUs singly."""
        return cls(by_vcpu=tuple(sorted(pins.items())))

    def resolve(self, vcpus: int) -> dict[int, CpuSet]:
        """Say which cpuset each vCPU of a guest with ``vcpus`` vCPUs gets.

        :raises VcpuUnknown: if a vCPU is named that such a guest lacks.
        """
        if self.every is not None:
            return dict.fromkeys(range(vcpus), self.every)
        unknown = CpuSet(vcpu for vcpu, _ in self.by_vcpu if vcpu >= vcpus)
        if unknown:
            raise exception.VcpuUnknown(
                f"vCPU {unknown} does not exist: the guest has {vcpus} vCPUs, "
                f"0 to {vcpus - 1}; correct the request or resize the instance"
            )
        return dict(self.by_vcpu)

    def names(self, vcpu: int) -> bool:
        """Tell whether anything is asked of a vCPU."""
        return self.every is not None or vcpu in dict(self.by_vcpu)

    def to_json(self) -> str | dict[str, str]:
        """Give the JSON form: a cpuset, or an object ``{vCPU: cpuset}``."""
        if self.every is not None:
            return str(self.every)
        return {str(vcpu): str(cpus) for vcpu, cpus in self.by_vcpu}

    @classmethod
    def from_json(cls, value: str | Mapping[str, str]) -> VcpuPinning:
        """Read what :meth:`to_json` gives."""
        if isinstance(value, str):
            return cls(every=CpuSet.parse(value))
        return cls.of_map({int(vcpu): CpuSet.parse(cpus) for vcpu, cpus in value.items()})


@dataclass(frozen=True, slots=True)
class Allocation:
    """What is wanted for one instance; None means "not asked".

    An allocation that asks for nothing (it is false) returns the guest to
    its baseline.
    """

    vcpu_pinning: VcpuPinning | None = None

    def __bool__(self) -> bool:
        return self.vcpu_pinning is not None

    def to_json(self) -> dict[str, Any]:
        """Give the JSON form, without what is not asked."""
        return {} if self.vcpu_pinning is None else {"vcpu_pinning": self.vcpu_pinning.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Allocation:
        """Read what :meth:`to_json` gives."""
        pinning = value.get("vcpu_pinning")
        return cls(None if pinning is None else VcpuPinning.from_json(pinning))
