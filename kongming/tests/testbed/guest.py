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

"""Real QEMU guests, as Nova would have made them but as light as they can be.

They have no disk and no BIOS: their CPUs halt at the first instruction.
"""

from __future__ import annotations

from collections.abc import Sequence
import os
from pathlib import Path
import struct
import tempfile
from typing import Any
import uuid as uuid_module
import xml.etree.ElementTree as ET

import libvirt

from kongming.tests.testbed.granted import Granted
from kongming.tests.testbed.qemu import find_emulator

PROJECT_ID = "0f2b9b9e3d1c4c4e8f3a7d5b6c1e2f30"
USER_ID = "8a1d4a5c6b7e4f0d9c2b3a1f5e6d7c80"
NOVA = "http://openstack.org/xmlns/libvirt/nova/1.1"
QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"

MEMORY_MIB = 32
FIRMWARE_SIZE = 64 * 1024
RESET_VECTOR = 0xFFF0
#: Where the firmware is in memory when the CPU starts.
ROM_BASE = 0xFFFF0000
# The interval timer in one-shot mode, or QEMU would wake up 36 times a second for it:
#   cli; mov al,0x30; out 0x43,al; mov al,0; out 0x40,al; out 0x40,al
# then for good: hlt; jmp to the hlt
END = bytes.fromhex("f4 ebfd")
HALT = bytes.fromhex("fa b030 e643 b000 e640 e640") + END
LOAD_TABLE = bytes.fromhex("2e660f0116")
# A jump from there to the beginning of the firmware.
JUMP = bytes.fromhex("e9 0d00")

ET.register_namespace("nova", NOVA)
ET.register_namespace("qemu", QEMU)


def start_guest(
    connection: Any,
    name: str,
    *,
    uuid: str | None = None,
    firmware: Path | None = None,
    persistent: bool = False,
    filled: bool = False,
    **options: Any,
) -> Any:
    """Start a domain, which runs when this returns.

    :param connection: a libvirt.virConnect of the testbed's
    :param firmware: a file that its firmware is written to, and that stays: a guest that
        is migrated reads it where it arrives
    :param persistent: it is defined, as Nova's are; else it is gone when it ends
    :param filled: it writes to all of its memory first, so that to migrate it takes time
    :param options: those of `domain_xml`
    :returns: its libvirt.virDomain
    """
    known = uuid or str(uuid_module.uuid4())
    content = halting_firmware()
    if filled:
        content = filling_firmware(options.setdefault("memory_mib", MEMORY_MIB))
    if firmware is not None:
        firmware.write_bytes(content)
        return _start(connection, domain_xml(name, known, firmware, **options), persistent)
    # Only its start reads the firmware.
    with tempfile.NamedTemporaryFile(prefix="kongming-", suffix=".rom") as temporary:
        temporary.write(content)
        temporary.flush()
        # QEMU may run as another user.
        os.fchmod(temporary.fileno(), 0o644)
        xml = domain_xml(name, known, Path(temporary.name), **options)
        return _start(connection, xml, persistent)


def _start(connection: Any, xml: str, persistent: bool) -> Any:
    if not persistent:
        return connection.createXML(xml, 0)
    domain = connection.defineXML(xml)
    domain.create()
    return domain


def destroy(domain: Any) -> None:
    """Destroy a domain unless it is gone already."""
    try:
        domain.destroy()
        if domain.isPersistent():
            domain.undefine()
    except libvirt.libvirtError as error:
        gone = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
        if error.get_error_code() not in gone:
            raise


def halting_firmware() -> bytes:
    """A BIOS that halts the CPU for good, so that a guest costs nothing."""
    return (bytes(RESET_VECTOR) + HALT).ljust(FIRMWARE_SIZE, b"\0")


def filling_firmware(memory_mib: int) -> bytes:
    """A BIOS that writes to each page above the first MiB, and halts then."""
    # cli, and the timer as above; ds gets a limit of 4 GiB, from the table at the end:
    #   lgdt cs:[..]; mov eax,cr0; or al,1; mov cr0,eax; mov bx,8; mov ds,bx
    #   and al,0xfe; mov cr0,eax; mov edi,0x100000
    before, after = HALT[: -len(END)], bytes.fromhex("0f20c0 0c01 0f22c0 bb0800 8edb 24fe 0f22c0")
    # mov [edi],edi; add edi,0x1000; cmp edi,..; jb to the mov
    loop = bytes.fromhex("6766893f 6681c700100000 6681ff") + struct.pack("<I", memory_mib << 20)
    loop += struct.pack("<Bb", 0x72, -len(loop) - 2)
    after += bytes.fromhex("66bf 00001000") + loop + END
    table = len(before) + len(LOAD_TABLE) + 2 + len(after)
    code = before + LOAD_TABLE + struct.pack("<H", table) + after
    # Its limit and its address; an empty descriptor, and one of all memory.
    code += struct.pack("<HIQ", 15, ROM_BASE + table + 6, 0) + bytes.fromhex("ffff000000 92cf00")
    return (code.ljust(RESET_VECTOR, b"\0") + JUMP).ljust(FIRMWARE_SIZE, b"\0")


def domain_xml(
    name: str,
    uuid: str,
    firmware: Path,
    *,
    vcpus: int = 2,
    max_vcpus: int | None = None,
    memory_mib: int = MEMORY_MIB,
    cpuset: str | None = None,
    nova: bool = True,
    project_id: str = PROJECT_ID,
    granted: Granted | Sequence[str] | None = None,
    single_threaded: bool = False,
    iothreads: int = 0,
    numatune: str | None = None,
    allocated: bool = False,
    file_backed: bool = False,
    vhost: bool = False,
) -> str:
    """The definition of a guest.

    :param max_vcpus: leaves room for vCPUs to be plugged in
    :param cpuset: where its vCPUs may run from the start, in libvirt's form
    :param nova: with the metadata by which Nova's guests are known
    :param granted: with a NUMA topology, as Nova writes it; in short: the host CPUs of each
        vCPU, in libvirt's form
    :param single_threaded: one thread runs all vCPUs, which libvirt can't pin then;
        takes two vCPUs or more
    :param iothreads: how many, numbered from 1
    :param numatune: the mode in which its memory is bound to node 0 from the start
    :param allocated: the host gives it all its memory at the start; else it has next
        to none, as it never writes to any
    :param file_backed: its memory is a file that others can share, as nova.conf's
        ``file_backed_memory`` has it
    :param vhost: with a thread of the kernel's that moves data for it, as the interfaces of
        guests with KVM have it: here it is a socket's
    """
    if granted is not None:
        granted = granted if isinstance(granted, Granted) else Granted(granted)
        vcpus = len(granted.vcpus)
    domain = ET.Element("domain", type="qemu")
    _add(domain, "name", name)
    _add(domain, "uuid", uuid)
    if nova:
        metadata = _add(domain, "metadata")
        metadata.append(_nova_instance(name, vcpus, memory_mib, project_id))
    _add(domain, "memory", memory_mib, unit="MiB")
    if allocated or file_backed:
        _add_memory_backing(domain, file_backed)
    count = _add(domain, "vcpu", max_vcpus or vcpus, placement="static", current=str(vcpus))
    if cpuset is not None:
        count.set("cpuset", cpuset)
    if iothreads:
        _add(domain, "iothreads", iothreads)
    if numatune is not None:
        _add(_add(domain, "numatune"), "memory", mode=numatune, nodeset="0")
    system = _add(domain, "os")
    _add(system, "type", "hvm", arch="x86_64", machine="pc")
    _add(system, "loader", firmware, readonly="yes", type="rom")
    # QEMU plugs no vCPU into a guest without ACPI.
    _add(_add(domain, "features"), "acpi")
    if granted is not None:
        granted.add_to(domain, memory_mib, iothreads)
    _add_devices(domain, vhost)
    if single_threaded:
        arguments = _add(domain, f"{{{QEMU}}}commandline")
        for argument in ("-icount", "shift=auto"):
            _add(arguments, f"{{{QEMU}}}arg", value=argument)
    return ET.tostring(domain, encoding="unicode")


def _nova_instance(name: str, vcpus: int, memory_mib: int, project_id: str) -> ET.Element:
    instance = ET.Element(f"{{{NOVA}}}instance")
    _add(instance, f"{{{NOVA}}}package", version="26.1.0")
    _add(instance, f"{{{NOVA}}}name", name)
    _add(instance, f"{{{NOVA}}}creationTime", "2024-01-01 00:00:00")
    flavor = _add(instance, f"{{{NOVA}}}flavor", name="m1.tiny")
    sizes = {"memory": memory_mib, "disk": 1, "swap": 0, "ephemeral": 0, "vcpus": vcpus}
    for size, value in sizes.items():
        _add(flavor, f"{{{NOVA}}}{size}", value)
    owner = _add(instance, f"{{{NOVA}}}owner")
    _add(owner, f"{{{NOVA}}}user", "demo", uuid=USER_ID)
    _add(owner, f"{{{NOVA}}}project", "demo", uuid=project_id)
    return instance


def _add_devices(domain: ET.Element, vhost: bool) -> None:
    devices = _add(domain, "devices")
    _add(devices, "emulator", find_emulator())
    _add(devices, "controller", type="usb", model="none")
    _add(devices, "memballoon", model="none")
    if vhost:
        _add(_add(devices, "vsock", model="virtio"), "cid", auto="yes")


def _add_memory_backing(domain: ET.Element, file_backed: bool) -> None:
    backing = _add(domain, "memoryBacking")
    if file_backed:
        _add(backing, "source", type="file")
        _add(backing, "access", mode="shared")
        _add(backing, "discard")
    _add(backing, "allocation", mode="immediate")


def _add(parent: ET.Element, tag: str, text: object = None, /, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    if text is not None:
        element.text = str(text)
    return element
