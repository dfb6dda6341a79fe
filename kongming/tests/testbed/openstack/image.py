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

"""A disk image whose whole guest is a boot sector that obeys the power button.

With it a guest shuts down cleanly and at once, as Nova's soft reboot and stop request it.
"""

SIZE = 1024 * 1024
SECTOR = 512

# QEMU's machine "pc" has the PIIX4's ACPI registers there.
POWER_STATUS = 0x600
POWER_ENABLE = 0x602
POWER_CONTROL = 0x604


def obedient_disk() -> bytes:
    """The image, in the raw format."""
    return boot_sector().ljust(SIZE, b"\0")


def boot_sector() -> bytes:
    """A sector that the BIOS boots.

    Nova and Glance take a sector with the boot signature for a partition table, which
    they refuse in a raw image, unless it is the boot record of a FAT file system. So it
    has what they know such a one by: its first jump, two FATs, the medium 0xf8.
    """
    jump = bytes.fromhex("eb3c 90")
    record = bytearray(SECTOR)
    record[: len(jump)] = jump
    record[0x10] = 2
    record[0x15] = 0xF8
    code = _program()
    # Where the jump leads to: behind the boot record's fields.
    record[0x3E : 0x3E + len(code)] = code
    record[-2:] = b"\x55\xaa"
    return bytes(record)


def _program() -> bytes:
    def port(number: int) -> str:
        return "ba" + number.to_bytes(2, "little").hex()

    lines = (
        "fb",  # sti
        port(POWER_ENABLE),  # mov dx, enable
        "b80001",  # mov ax, 0x100: the power button
        "ef",  # out dx, ax
        # sleep:
        "f4",  # hlt
        port(POWER_STATUS),  # mov dx, status
        "ed",  # in ax, dx
        "f6c401",  # test ah, 1: was it pressed?
        "74f6",  # jz sleep
        port(POWER_CONTROL),  # mov dx, control
        "b80020",  # mov ax, 0x2000: power off
        "ef",  # out dx, ax
        "ebed",  # jmp sleep
    )
    return bytes.fromhex("".join(lines))
