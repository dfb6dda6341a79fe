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
"""The saved image of a suspended guest: a placement in it could keep the guest from resuming.

libvirt saves the live definition with the guest's memory, pins included, and refuses to restore it
on a host where one of their CPUs or nodes is missing or offline. So Kongming's values are removed
from the image, and set again when the guest runs.
"""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from kongming.hypervisor import definition
from kongming.hypervisor.aspects import table


def is_saved(domain: Any) -> bool:
    """Return whether a domain is suspended and has a saved image; raise libvirt's errors."""
    try:
        return not domain.isActive() and bool(domain.hasManagedSaveImage(0))
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_NO_DOMAIN):
            raise
        return False


def release(domain: Any) -> bool:
    """Remove Kongming's values from a domain's image; return whether there were any."""
    xml = released(domain.managedSaveGetXMLDesc(libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE))
    if xml is not None:
        domain.managedSaveDefineXML(xml, 0)
    return xml is not None


def released(xml: str) -> str | None:
    """Return a domain's XML without Kongming's values; None if it has none.

    Pins and memory nodes are removed instead of being reset: the former ones may not exist any
    more, and without any the guest runs where Nova lets it.
    """
    root = ET.fromstring(xml)
    metadata = root.find("metadata")
    notes = definition.notes(root)
    if metadata is None or not notes:
        return None
    for note in notes:
        table.remove(root, table.read(note))
        metadata.remove(note)
    for name in {row.section for row in table.ROWS.values()}:
        element = root.find(name)
        if element is not None and not len(element):
            root.remove(element)
    return ET.tostring(root, encoding="unicode")
