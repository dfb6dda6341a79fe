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

"""What a virtual host boots from: Debian's kernel, and an initramfs made of its parts.

Nothing is installed: two packages are downloaded and what is needed is kept in a cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
import hashlib
import lzma
from pathlib import Path
import re
import shutil

from kongming.tests.testbed.debian_package import keep, output, unpack

# The cloud kernel is smaller, but can't mount 9p.
KERNEL_PACKAGE = "linux-image-amd64"
BUSYBOX_PACKAGE = "busybox-static"
# What Debian doesn't build into its kernel, of what virtual_host_init.sh needs.
MODULES = (
    "virtio_pci",
    "virtio_console",
    "virtio_rng",
    "virtio_net",
    "9pnet_virtio",
    "9p",
    "overlay",
    "vhost_vsock",
)

DEPENDENCIES = re.compile(rb"\0depends=([^\0]*)\0")
FOLDER_MODE = 0o040755
FILE_MODE = 0o100755
LAST_ENTRY = "TRAILER!!!"


class BootFiles:
    """A kernel, its modules and a busybox, downloaded at the first use."""

    def __init__(self, cache: Path) -> None:
        modules = hashlib.sha256(" ".join(MODULES).encode()).hexdigest()[:8]
        self.folder = cache / f"boot-{modules}"

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def busybox(self) -> Path:
        return self.folder / "busybox"

    def initramfs(self, files: Mapping[str, bytes]) -> bytes:
        """An archive for the kernel, with busybox, the modules and the given files.

        The modules are in /modules, in the order of their names. All files may be run.
        """
        packed = {"bin/busybox": self.busybox.read_bytes(), **files}
        for module in sorted((self.folder / "modules").iterdir()):
            packed[f"modules/{module.name}"] = module.read_bytes()
        folders = {str(parent) for name in packed for parent in Path(name).parents} - {"."}
        entries = [(folder, FOLDER_MODE, b"") for folder in sorted(folders)]
        entries += [(name, FILE_MODE, content) for name, content in packed.items()]
        entries.append((LAST_ENTRY, 0, b""))
        return b"".join(_archived(*entry) for entry in entries)

    def fetch(self) -> None:
        """Download what is not in the cache yet.

        :raises RuntimeError: the packages can't be had, with the reason
        """
        keep(self.folder, _fill)


def _fill(kept: Path, scratch: Path) -> None:
    (kept / "modules").mkdir()
    # In bin up to Debian 12, in usr/bin from 13.
    shutil.copy(next(unpack(BUSYBOX_PACKAGE, scratch / "busybox").rglob("bin/busybox")), kept)
    kernel = unpack(_dependency(KERNEL_PACKAGE), scratch / "kernel")
    shutil.copy(next(kernel.glob("boot/vmlinuz-*")), kept / "vmlinuz")
    for number, content in enumerate(_modules(kernel)):
        (kept / f"modules/{number:02}.ko").write_bytes(content)


def _modules(kernel: Path) -> Iterator[bytes]:
    """The required modules and all that they depend on, each after what it needs."""
    files = {_module_name(path): path for path in kernel.rglob("*.ko*")}
    given: set[str] = set()

    def with_needed(names: Iterable[str]) -> Iterator[bytes]:
        for name in names:
            # What is not there as a module is built in.
            if name not in files or name in given:
                continue
            given.add(name)
            path = files[name]
            content = path.read_bytes()
            if path.suffix == ".xz":
                content = lzma.decompress(content)
            found = DEPENDENCIES.search(content)
            needed = found.group(1).decode() if found else ""
            yield from with_needed(needed.replace("-", "_").split(","))
            yield content

    yield from with_needed(MODULES)


def _module_name(path: Path) -> str:
    return path.name.partition(".")[0].replace("-", "_")


def _dependency(package: str) -> str:
    """The package of a certain version that a package of none stands for."""
    listed = output("apt-cache", "depends", "--important", package)
    found = re.search(r"Depends: (linux-image-\S+)", listed)
    if found is None:
        raise RuntimeError(f"apt knows no kernel:\n{listed}")
    return found.group(1)


def _archived(name: str, mode: int, content: bytes) -> bytes:
    """One entry of a cpio archive in the form "newc"."""
    links, name_size = 1, len(name) + 1
    # Inode, mode, owner, group, links, time, size, two devices of two numbers, check sum.
    fields = [0, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, name_size, 0]
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name.encode() + b"\0") + _padded(content)


def _padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % 4)
