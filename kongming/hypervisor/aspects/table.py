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

"""The table of aspects, and what concerns all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from kongming.allocation.target import Aspect, Target, Value
from kongming.hypervisor.aspects import pins
from kongming.hypervisor.aspects.cpu_time import Shares, VcpuQuota
from kongming.hypervisor.aspects.memory import MemoryNodes
from kongming.hypervisor.aspects.row import LIVE, Change, Row
from kongming.hypervisor.host import Host

ROWS: Mapping[Aspect, Row[Any]] = {
    Aspect.VCPU: pins.VCPU,
    Aspect.EMULATOR: pins.EMULATOR,
    Aspect.IOTHREAD: pins.IOTHREAD,
    Aspect.SHARES: Shares(),
    Aspect.QUOTA: VcpuQuota(),
    Aspect.MEMORY: MemoryNodes(),
}


def change(domain: Any, host: Host, what: Target, value: Value, flags: int = LIVE) -> Change:
    """Return the change that sets a target to a value."""
    return ROWS[what.aspect].change(domain, host, what.number, value, flags)


def read(parent: ET.Element) -> dict[Target, Value]:
    """Read all values in a baseline element."""
    return {what: value for row in ROWS.values() for what, value in row.read(parent).items()}


def write(parent: ET.Element, values: Mapping[Target, Value]) -> None:
    """Add values to a baseline element."""
    for what, value in sorted(values.items()):
        ROWS[what.aspect].write(parent, what.number, value)


def remove(domain: ET.Element, values: Mapping[Target, Value]) -> None:
    """Remove targets from a saved domain.

    :param values: their values in the baseline.
    """
    for what, before in values.items():
        row = ROWS[what.aspect]
        for section in domain.findall(row.section):
            row.remove(section, what.number, before)
