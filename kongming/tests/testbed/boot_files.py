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
import os
from pathlib import Path
import re
import shutil
import subprocess
import tempfile

from kongming.tests.testbed.process import find_program

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
)

DEPENDENCIES = re.compile(rb"\0depends=([^\0]*)\0")
FOLDER_MODE = 0o040755
FILE_MODE = 0o100755
LAST_ENTRY = "TRAILER!!!"


def cache_folder() -> Path:
    """Where the testbed keeps what takes long to get."""
    chosen = os.environ.get("KONGMING_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache/kongming"


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

        :raises RuntimeError: the packages can't be had; says why
        """
        if self.folder.exists():
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        _output("apt-get", "-q", "update")
        with tempfile.TemporaryDirectory(dir=self.folder.parent, prefix="fetch-") as scratch:
            kept = Path(scratch, "kept")
            (kept / "modules").mkdir(parents=True)
            busybox = _unpacked(BUSYBOX_PACKAGE, Path(scratch, "busybox"))
            shutil.copy(busybox / "bin/busybox", kept / "busybox")
            kernel = _unpacked(_dependency(KERNEL_PACKAGE), Path(scratch, "kernel"))
            shutil.copy(next(kernel.glob("boot/vmlinuz-*")), kept / "vmlinuz")
            for number, content in enumerate(_modules(kernel)):
                (kept / f"modules/{number:02}.ko").write_bytes(content)
            # Somebody else may have been faster: theirs is as good.
            if not self.folder.exists():
                kept.rename(self.folder)


def _modules(kernel: Path) -> Iterator[bytes]:
    """The wanted modules and all that they depend on, each after what it needs."""
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
    listed = _output("apt-cache", "depends", "--important", package)
    found = re.search(r"Depends: (linux-image-\S+)", listed)
    if found is None:
        raise RuntimeError(f"apt knows no kernel:\n{listed}")
    return found.group(1)


def _unpacked(package: str, folder: Path) -> Path:
    folder.mkdir()
    # Without a sandbox: apt's own user can't write into our folder.
    _output("apt-get", "-q", "-o", "APT::Sandbox::User=", "download", package, cwd=folder)
    _output("dpkg-deb", "--extract", *map(str, folder.glob("*.deb")), ".", cwd=folder)
    return folder


def _output(name: str, *arguments: str, cwd: Path | None = None) -> str:
    command = [find_program(name, name.partition("-")[0]), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def _archived(name: str, mode: int, content: bytes) -> bytes:
    """One entry of a cpio archive in the form "newc"."""
    links, name_size = 1, len(name) + 1
    # Inode, mode, owner, group, links, time, size, two devices of two numbers, check sum.
    fields = [0, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, name_size, 0]
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name.encode() + b"\0") + _padded(content)


def _padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % 4)
