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

"""How libvirt's QEMU driver is set up wherever the testbed uses it.

Quick to start, without KVM, and without help from any other daemon.
"""

from __future__ import annotations

from pathlib import Path

from kongming.tests.testbed.namespace import in_namespace
from kongming.tests.testbed.process import find_program

EMULATOR = "qemu-system-x86_64"
KVM = Path("/dev/kvm")

# stdio_handler: no virtlogd. The rest: QEMU runs as we do, on plain files.
QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
stdio_handler = "file"
namespaces = []
"""


def masked_from_qemu() -> list[Path]:
    """What only costs time if libvirt sees it.

    Each emulator is probed once, for a second or two. A /dev/kvm that opens but
    doesn't work makes libvirt throw the result away and probe at each domain
    start anew, for 18 s or more.
    """
    wanted = Path(find_program(EMULATOR, "qemu-system-x86"))
    others = (path for path in wanted.parent.glob("qemu-system-*") if path.name != EMULATOR)
    return [KVM, *sorted(others)]


def without_kvm(command: list[str], root: Path) -> list[str]:
    """The command line that runs a command where libvirt can't find KVM.

    :param root: an existing folder; an empty file is left there
    """
    return in_namespace(command, binds={}, masks=masked_from_qemu(), empty_file=empty_file(root))


def empty_file(root: Path) -> Path:
    """A file that not even root can open for writing or run, once it is read-only."""
    path = root / "empty"
    path.touch(mode=0o400)
    return path
