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

"""Kongming's elements in a domain's metadata: writing and removing them.

Each function raises libvirt's errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import libvirt

from kongming.allocation.target import Target, Value
from kongming.hypervisor import definition
from kongming.hypervisor.aspects import table
from kongming.hypervisor.aspects.row import DEFINED, LIVE
from kongming.hypervisor.host import Host


def write(domain: Any, baseline: Mapping[Target, Value], store: str, host: Host) -> None:
    """Write the baseline into the live domain; remove it if it is empty.

    There it exists exactly as long as what it describes: across restarts of libvirtd, live
    migration and managed save.

    :param store: the store that has the guest's request.
    :param host: the host on which the baseline is valid: a guest that is migrated takes it along.
    """
    xml = definition.baseline_xml(baseline, store, host.uuid) if baseline else None
    _set(domain, xml, LIVE)


def write_released(
    domain: Any, released: Mapping[Target, Value], host: Host, flags: int = LIVE
) -> None:
    """Write the values that libvirt keeps after a release; remove the element if there are none.

    The hook removes them where the guest arrives: that host may lack one of these CPUs.
    """
    xml = definition.baseline_xml(released, host=host.uuid, name="released") if released else None
    _set(domain, xml, flags, definition.RELEASED_PREFIX, definition.RELEASED_URI)


def in_definition(domain: Any, host: Host) -> Mapping[Target, Value] | None:
    """Return the baseline of a domain's persistent definition; None if there is none.

    There is one if the domain was defined from its live XML, as Nova does when it swaps a volume
    or migrates the guest.
    """
    if not domain.isPersistent():
        return None
    return definition.parse_baseline(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), host)


def clean(domain: Any, host: Host, baseline: Mapping[Target, Value]) -> None:
    """Remove Kongming's values from the persistent definition.

    Each value is reset by a call of its own, and the element is removed last: the definition can't
    be replaced as a whole, because Nova may be changing it.
    """
    for what, value in baseline.items():
        table.change(domain, host, what, value, DEFINED).call()
    write_released(domain, definition.outlasting(baseline), host, DEFINED)
    _set(domain, None, DEFINED)


def _set(
    domain: Any,
    xml: str | None,
    flags: int,
    prefix: str = definition.BASELINE_PREFIX,
    uri: str = definition.BASELINE_URI,
) -> None:
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, xml, prefix, uri, flags)
