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

from collections.abc import Sequence
import contextlib
from functools import partial
import json
import os
from pathlib import Path
import signal

from kongming.tests.testbed.namespace import in_namespace
from kongming.tests.testbed.process import find_program, wait_until

EMULATOR = "qemu-system-x86_64"
KVM = Path("/dev/kvm")
PROC = Path("/proc")
END_TIMEOUT = 10

# stdio_handler: no virtlogd. The rest: QEMU runs as libvirt does, on plain files.
_QEMU_CONF = """\
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
stdio_handler = "file"
namespaces = []
"""


def qemu_conf(*, root: bool, controllers: Sequence[str] | None) -> str:
    """Return the text of a qemu.conf.

    :param root: whether libvirt runs as root, which has QEMU run as another user otherwise
    :param controllers: those of the control groups that guests get, None for all; without any
        guests stay in libvirt's own group
    """
    user = 'user = "root"\ngroup = "root"\n' if root else ""
    groups = (
        "" if controllers is None else f"cgroup_controllers = {json.dumps(list(controllers))}\n"
    )
    return user + _QEMU_CONF + groups


def find_emulator() -> str:
    """Return the path of QEMU.

    :raises FileNotFoundError: it is not installed
    """
    return find_program(EMULATOR, "qemu-system-x86")


def masked_from_qemu() -> list[Path]:
    """Return what only costs time if libvirt sees it.

    Each emulator is probed once, for a second or two. A /dev/kvm that opens but
    doesn't work makes libvirt drop the result and probe at each domain
    start again, for 18 s or more.
    """
    return [KVM, *other_emulators(Path(find_emulator()))]


def other_emulators(selected: Path) -> list[Path]:
    """Return the emulators beside one, by their own names.

    A mask over a link is a mask over the file that it leads to: links that lead to the
    selected one, or are it, are left out.
    """
    found = {path.resolve() for path in selected.parent.glob("qemu-system-*") if path.exists()}
    return sorted(found - {selected.resolve()})


def without_kvm(command: list[str], root: Path) -> list[str]:
    """Return the command line that runs a command where libvirt can't find KVM.

    :param root: an existing folder; an empty file is left there
    """
    return in_namespace(command, binds={}, masks=masked_from_qemu(), empty_file=empty_file(root))


def empty_file(root: Path) -> Path:
    """Return a file that not even root can open for writing or run, once it is read-only."""
    path = root / "empty"
    path.touch(mode=0o400)
    return path


def end_guests(folder: Path) -> None:
    """Kill the guests whose pid files libvirt keeps anywhere in a folder."""
    for file in folder.rglob("*.pid"):
        with contextlib.suppress(OSError, ValueError):
            process = int(file.read_text())
            # Whose number it was may have ended, and somebody else have it by now.
            if _is_guest(process):
                os.kill(process, signal.SIGKILL)
                wait_until(partial(_is_over, process), END_TIMEOUT, f"QEMU {process} ends")


def _is_guest(process: int) -> bool:
    return (PROC / str(process) / "comm").read_text().startswith("qemu-system")


def _is_over(process: int) -> bool:
    try:
        # Empty, until its parent takes notice.
        return not (PROC / str(process) / "cmdline").read_bytes()
    except OSError:
        return True
