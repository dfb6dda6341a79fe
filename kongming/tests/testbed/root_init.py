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

"""The first process in a root directory: lays its mounts, then runs a command there.

Called by `debian_root` in namespaces of its own, with the description of the place as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import ctypes
from dataclasses import dataclass
import json
import os
from pathlib import Path
import socket
import subprocess
import sys

from kongming.tests.testbed import container, reaper

# The exit status of a shell for a command that it can't start.
NOT_FOUND = 127
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
LINKS = {
    "ptmx": "pts/ptmx",
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}


SYSTEMD = "/lib/systemd/systemd"
# What systemd knows a container by.
BOOT_ENVIRONMENT = {"container": "kongming", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
_CLONE_NEWCGROUP = 0x02000000


@dataclass(frozen=True)
class Place:
    """Where and how a command runs.

    :param root: the root directory, an existing folder
    :param layers: overlayfs's options; None: the root directory is all there already
    :param confined: as a plain container; else with all rights of a machine
    :param folder: the working directory, in the root
    :param init: systemd is its first process, below the control group of this name; others run
        the command; None: the command is all that runs
    """

    root: str
    layers: str | None
    confined: bool
    folder: str
    environment: Mapping[str, str]
    command: tuple[str, ...]
    init: str | None = None


def mount_options(place: Place) -> Iterator[tuple[str, ...]]:
    """Yield the arguments of each `mount` that makes the place, in order."""
    root = place.root
    if place.layers is None:
        yield ("--bind", root, root)
    else:
        yield ("-t", "overlay", "-o", place.layers, "overlay", root)
    yield ("-t", "proc", "proc", f"{root}/proc")
    if place.confined:
        yield ("-t", "sysfs", "-o", "ro", "sysfs", f"{root}/sys")
        yield ("-t", "cgroup2", "-o", "ro", "cgroup", f"{root}/sys/fs/cgroup")
    else:
        yield ("--rbind", "/sys", f"{root}/sys")
    # No /dev/kvm, no disks: as a container has it.
    yield ("-t", "tmpfs", "-o", "mode=755,size=64m", "tmpfs", f"{root}/dev")


def device_mount_options(root: str) -> Iterator[tuple[str, ...]]:
    """Yield the arguments of each `mount` below /dev."""
    for device in DEVICES:
        yield ("--bind", f"/dev/{device}", f"{root}/dev/{device}")
    yield ("-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=620", "devpts", f"{root}/dev/pts")
    yield ("-t", "tmpfs", "-o", "nosuid,nodev,noexec,size=64m", "shm", f"{root}/dev/shm")


def confining_mount_options(root: str) -> Iterator[tuple[str, ...]]:
    """Yield the arguments of each `mount` that hides or protects what is the kernel's."""
    for folder in container.MASKED_FOLDERS:
        if Path(root + folder).is_dir():
            yield ("-t", "tmpfs", "-o", "ro,size=0", "tmpfs", root + folder)
    for file in container.MASKED_FILES:
        if Path(root + file).exists():
            yield ("--bind", "/dev/null", root + file)
    for path in container.READ_ONLY:
        if Path(root + path).exists():
            yield ("--bind", root + path, root + path)
            yield ("-o", "remount,bind,ro", root + path)


def _mount(options: Iterator[tuple[str, ...]]) -> None:
    for each in options:
        subprocess.run(["mount", *each], check=True)


def _lay_devices(root: str) -> None:
    dev = Path(root, "dev")
    for device in DEVICES:
        (dev / device).touch()
    for name, target in LINKS.items():
        (dev / name).symlink_to(target)
    for folder in ("pts", "shm"):
        (dev / folder).mkdir()


def _lay_systemd(root: str, group: str) -> None:
    """Give systemd what it expects of a container's manager: /run, a console, its own cgroups."""
    Path(root, "dev/console").touch()
    for folder in ("run", "tmp"):
        _mount(
            iter(
                [
                    (
                        "-t",
                        "tmpfs",
                        "-o",
                        "mode=1777" if folder == "tmp" else "mode=755",
                        folder,
                        f"{root}/{folder}",
                    )
                ]
            )
        )
    tree = Path(root, "sys/fs/cgroup")
    subprocess.run(["umount", "--lazy", tree], check=False, capture_output=True)
    cgroups = ("-t", "cgroup2", "cgroup2", str(tree))
    _mount(iter([cgroups]))
    own = tree / group
    # One that a former systemd has left is empty.
    own.mkdir(exist_ok=True)
    (own / "cgroup.procs").write_text("0")
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWCGROUP):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["umount", tree], check=True)
    _mount(iter([cgroups]))


def main(written: str) -> int:
    """Make the place, go there, run its command; give its exit status."""
    fields = json.loads(written)
    place = Place(**{**fields, "command": tuple(fields["command"])})
    _mount(mount_options(place))
    _lay_devices(place.root)
    _mount(device_mount_options(place.root))
    if place.confined:
        _mount(confining_mount_options(place.root))
    if place.init is not None:
        _lay_systemd(place.root, place.init)
    socket.sethostname("debian")
    os.chroot(place.root)
    os.chdir(place.folder)
    try:
        if place.init is not None:
            os.execve(SYSTEMD, [SYSTEMD, "systemd.unit=multi-user.target"], BOOT_ENVIRONMENT)
        if not place.confined:
            return reaper.run(place.command, place.environment)
        container.refuse_system_calls()
        # As in a container the command is the first process, and no init.
        command = container.with_capabilities(place.command)
        os.execvpe(command[0], command, place.environment)
    except OSError as error:
        print(f"{place.command[0]}: {error.strerror}", file=sys.stderr)
    return NOT_FOUND


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
