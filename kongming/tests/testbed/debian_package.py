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

"""Files of Debian packages that are downloaded and unpacked into a cache, not installed."""

from __future__ import annotations

from collections.abc import Callable
import os
from pathlib import Path
import subprocess
import tempfile

from kongming.tests.testbed.process import find_program


def cache_folder() -> Path:
    """Where the testbed keeps what takes long to get."""
    chosen = os.environ.get("KONGMING_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache/kongming"


def keep(folder: Path, fill: Callable[[Path, Path], None]) -> None:
    """Fill a folder of the cache, if it isn't there yet.

    :param fill: gets an empty folder for what is to be kept, and one for what is not;
        called again, with new ones, after an update of apt's lists if it fails
    :raises RuntimeError: the packages can't be had, with the reason
    """
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        _fill(folder, fill)
    except RuntimeError:
        # No lists yet, or they name what is there no more. Only root may renew them.
        output("apt-get", "-q", "update")
        _fill(folder, fill)


def unpack(package: str, folder: Path) -> Path:
    """Download a package and unpack it into a new folder, which is returned."""
    folder.mkdir()
    # Without a sandbox: apt's own user can't write into our folder.
    output("apt-get", "-q", "-o", "APT::Sandbox::User=", "download", package, cwd=folder)
    output("dpkg-deb", "--extract", *map(str, folder.glob("*.deb")), ".", cwd=folder)
    return folder


def output(name: str, *arguments: str, cwd: Path | None = None) -> str:
    """What a program of apt or dpkg prints.

    :raises RuntimeError: it fails
    """
    command = [find_program(name, name.partition("-")[0]), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def _fill(folder: Path, fill: Callable[[Path, Path], None]) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetch-") as scratch:
        kept, unpacked = Path(scratch, "kept"), Path(scratch, "unpacked")
        kept.mkdir()
        unpacked.mkdir()
        fill(kept, unpacked)
        # Somebody else may have been faster: theirs is as good.
        if not folder.exists():
            kept.rename(folder)
