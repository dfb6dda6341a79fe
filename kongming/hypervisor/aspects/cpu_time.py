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

"""CPU time: the shares, and the quota of each vCPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from kongming.allocation import target
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import NO_QUOTA, PERIOD_US, Quota, Target
from kongming.hypervisor.aspects.row import Change, GuestState, Row, remove
from kongming.hypervisor.host import Host
from kongming.hypervisor.libvirt_reading import LibvirtReader
from kongming.hypervisor.reading import Reading

_UNLIMITED = -1
# Every real quota is far below. libvirt has several values for "no limit".
_NO_REAL_QUOTA_US = 10**12


class Shares(Row[int]):
    """The CPU shares, which only libvirt can read."""

    reading = "the CPU time"

    def change(self, domain: Any, host: Host, number: int, value: int, flags: int) -> Change:
        return _scheduler_change(domain, {"cpu_shares": value}, flags)

    def write(self, parent: ET.Element, number: int, value: int) -> None:
        ET.SubElement(parent, "shares", value=str(value))

    def read(self, parent: ET.Element) -> dict[Target, int]:
        shares = parent.find("{*}shares")
        return {} if shares is None else {target.SHARES: int(shares.get("value", ""))}

    def remove(self, section: ET.Element, number: int, before: int) -> None:
        _restore(section, "shares", before)

    def observe(self, what: Target, guest: GuestState, nodes: CpuSet) -> list[tuple[str, int]]:
        return []

    def read_libvirt(self, domain: LibvirtReader) -> dict[Target, Reading]:
        now = domain.scheduler
        return {target.SHARES: Reading.of(now["cpu_shares"])} if "cpu_shares" in now else {}


class VcpuQuota(Row[Quota]):
    """The quota of each vCPU."""

    reading = "the CPU time"

    def change(self, domain: Any, host: Host, number: int, value: Quota, flags: int) -> Change:
        limit = _UNLIMITED if value.quota_us is None else value.quota_us
        return _scheduler_change(
            domain, {"vcpu_quota": limit, "vcpu_period": value.period_us}, flags
        )

    def write(self, parent: ET.Element, number: int, value: Quota) -> None:
        quota = "none" if value.quota_us is None else str(value.quota_us)
        ET.SubElement(parent, "quota", quota_us=quota, period_us=str(value.period_us))

    def read(self, parent: ET.Element) -> dict[Target, Quota]:
        quota = parent.find("{*}quota")
        if quota is None:
            return {}
        limit = quota.get("quota_us", "none")
        period = int(quota.get("period_us", str(PERIOD_US)))
        return {target.QUOTA: Quota(None if limit == "none" else int(limit), period)}

    def remove(self, section: ET.Element, number: int, before: Quota) -> None:
        _restore(section, "period", None if before.quota_us is None else before.period_us)
        _restore(section, "quota", before.quota_us)

    def observe(self, what: Target, guest: GuestState, nodes: CpuSet) -> list[tuple[str, Quota]]:
        return [(f"vCPU {vcpu}", quota) for vcpu, quota in sorted(guest.vcpu_quotas())]

    def read_libvirt(self, domain: LibvirtReader) -> dict[Target, Reading]:
        now = domain.scheduler
        if "vcpu_quota" not in now:
            return {}
        unlimited = now["vcpu_quota"] <= 0 or now["vcpu_quota"] >= _NO_REAL_QUOTA_US
        quota = NO_QUOTA if unlimited else Quota(now["vcpu_quota"], now["vcpu_period"])
        # libvirt reads the group of vCPU 0 alone.
        return {target.QUOTA: Reading.of(quota, by_kernel=False)}


def _scheduler_change(domain: Any, parameters: Mapping[str, int], flags: int) -> Change:
    reported = {f"cputune.{name}": each for name, each in parameters.items()}
    return Change(reported, lambda: domain.setSchedulerParametersFlags(parameters, flags))


def _restore(parent: ET.Element, name: str, value: int | None) -> None:
    if value is None:
        remove(parent, name)
        return
    for element in parent.findall(name):
        element.text = str(value)
