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

"""A fresh Debian on which commands are run one after another: a layer above one of the roots."""

from __future__ import annotations

from collections.abc import Iterable
import os
from pathlib import Path
import shutil
import subprocess
import sys

from kongming.tests.testbed.debian_package import cache_folder
from kongming.tests.testbed.process import patience

ROOTS = cache_folder() / "debian-roots"
# The shell itself does not end where a command with ! in front of it succeeds.
PRELUDE = """set -eo pipefail
fails() { if "$@"; then echo "does not fail: $*" >&2; exit 1; fi; }"""


class DebianMachine:
    """A machine without a past, in this source tree; a context manager.

    :param suite: the release's name
    :param purpose: part of the layer's name
    :param systemd: whether systemd is its init, while commands run
    """

    def __init__(self, suite: str, purpose: str, *, systemd: bool = False) -> None:
        self._suite = suite
        self._options = ["--systemd"] if systemd else []
        self._layer = ROOTS / "layers" / f"{purpose}-{suite}-{os.getpid()}"

    def __enter__(self) -> DebianMachine:
        self._layer.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._layer)

    def run(self, *commands: str) -> str:
        """Run commands of bash as root; give what they print.

        A command after ``fails`` has to.

        :raises RuntimeError: if one fails
        """
        debian_root = [sys.executable, "-m", "kongming.tests.testbed.debian_root"]
        script = "\n".join([PRELUDE, *commands])
        ended = subprocess.run(
            [
                *(*debian_root, "--directory", str(ROOTS), "run", "--layer", self._layer.name),
                *(*self._options, self._suite, "bash", "-c", script),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1200 * patience(),
            check=False,
        )
        if ended.returncode:
            raise RuntimeError(
                f"{self._suite}, {script}:\n{ended.stdout[-5000:]}\n{ended.stderr[-5000:]}"
            )
        return ended.stdout

    def put(self, files: Iterable[Path], folder: str) -> None:
        """Put files of this machine into a folder there."""
        # Where no overlayfs can be, the second is the root.
        targets = [self._layer / top / folder.lstrip("/") for top in ("changes", "root")]
        for target in targets:
            target.mkdir(parents=True, exist_ok=True)
        for file in files:
            for target in targets:
                shutil.copy2(file, target)

    def get(self, folder: str, into: Path) -> None:
        """Copy a folder that is there to a new one of this machine."""
        (found,) = self._layer.glob(f"*/{folder.lstrip('/')}")
        shutil.copytree(found, into)
