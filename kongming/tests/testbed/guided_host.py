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

"""A host on which a page of the installation guide is followed, command by command.

The commands run on this machine, and change nothing of it: /etc, /usr/bin, /var/lib, /opt and
/root are layers above the machine's, in a mount namespace that ends with the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
import os
from pathlib import Path
import shlex
import subprocess
import sys

from kongming.tests.testbed.libvirtd import HOLDER
from kongming.tests.testbed.namespace import in_namespace_of
from kongming.tests.testbed.pages import INSTALL, TOP, blocks, typed
from kongming.tests.testbed.process import Process, Service, find_program, patience, wait_until

LAYERED = ("/etc", "/usr/bin", "/var/lib", "/opt", "/root")
# Of no use here, or in need of a network: what these would bring is there.
LEFT_OUT = ("apt-get", "editor", "journalctl", "virsh")


def steps(page: str, values: Mapping[str, str]) -> list[str]:
    """Return what root types of a page, and what is written into files, as shell commands.

    :param values: what stands in the page → what stands there on this host
    """
    found = []
    for block in blocks(INSTALL / f"{page}.rst"):
        text = block.text
        for old, new in values.items():
            text = text.replace(old, new)
        if block.kind == "ini" and block.path.startswith("/"):
            found.append(f"cat > {block.path} << 'END'\n{text}\nEND")
        else:
            found += typed([replace(block, text=text)])
    return [step for step in found if not step.startswith(LEFT_OUT)]


class GuidedHost(Service):
    """A host made to look as a deployment tool leaves it; a context manager.

    :param root: a folder that all users may enter
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._holder = Process([], root / "namespace.log")

    def start(self) -> None:
        """Return when commands can be run."""
        layers = self.root / "layers"
        layers.mkdir()
        script = [f"mount -t tmpfs layers {layers}"]
        for number, folder in enumerate(LAYERED):
            upper, work = f"{layers}/{number}/upper", f"{layers}/{number}/work"
            options = f"lowerdir={folder},upperdir={upper},workdir={work}"
            script += [
                f"mkdir -p {upper} {work}",
                f"mount -t overlay -o {options} {number} {folder}",
            ]
        script.append('exec "$@"')
        unshare = [find_program("unshare", "util-linux"), "--mount", "--propagation", "private"]
        self._holder.command = [*unshare, "sh", "-ec", "\n".join(script), "sh", *HOLDER]
        self._holder.start()
        comm = Path(f"/proc/{self._holder.pid}/comm")
        self._holder.wait_ready(
            lambda: comm.read_text().strip() == HOLDER[0], 30, "the layers are there"
        )
        runner = f'exec {sys.executable} -m kongming.tests.testbed.unit_runner "$@"'
        self.run(
            # What the machine itself may have is hidden: only in the layers.
            "mountpoint -q /var/lib && mountpoint -q /etc",
            "rm -rf /var/lib/kongming /etc/kongming /etc/systemd/system/kongming-*",
            "rm -rf /opt/kongming /usr/bin/kongming-*",
            f"ln -s {sys.prefix} /opt/kongming",
            f"printf '%s\\n' '#!/bin/sh' {shlex.quote(runner)} > /usr/bin/systemctl.new",
            "chmod 755 /usr/bin/systemctl.new",
            "mv /usr/bin/systemctl.new /usr/bin/systemctl",
            # The interpreter may be in a home, which other users may not enter.
            *(f"chmod o+x {each}" for each in _parents(Path(sys.executable).resolve())),
        )

    def run(self, *commands: str) -> str:
        """Run commands of a shell as root, in the source tree; give what they print.

        :raises RuntimeError: if one fails
        """
        script = "\n".join(["set -e", *commands])
        ended = subprocess.run(
            in_namespace_of(self._holder.pid, ["sh", "-c", f"cd {TOP}\n{script}"], None),
            env={**os.environ, "PYTHONPATH": str(TOP), "KONGMING_UNITS": str(self.root)},
            capture_output=True,
            text=True,
            timeout=120 * patience(),
            check=False,
        )
        if ended.returncode:
            raise RuntimeError(f"{ended.stdout}{ended.stderr}\nwas the output of:\n{script}")
        return ended.stdout

    def log(self, unit: str) -> str:
        """Give what a unit has logged."""
        path = self.root / f"{unit}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_log(self, unit: str, text: str) -> None:
        """Wait until a unit has logged a text."""
        try:
            wait_until(lambda: text in self.log(unit), 60, f"{text!r} in the log of {unit}")
        except TimeoutError as error:
            error.add_note(self.log(unit)[-3000:])
            raise

    def _end(self) -> None:
        if self._holder.running:
            self.run("systemctl stop-all")
        self._holder.kill()


def _parents(path: Path) -> list[Path]:
    """The folders above a path that other users may not enter."""
    return [each for each in path.parents if not each.stat().st_mode & 0o001]
