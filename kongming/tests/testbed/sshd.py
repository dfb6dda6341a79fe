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

"""An SSH server of its own. Debian's package would start one for all: only unpacked."""

from __future__ import annotations

import os
from pathlib import Path
import re
import shutil
import socket
import subprocess

from kongming.tests.testbed.debian_package import cache_folder, keep, output, unpack
from kongming.tests.testbed.namespace import in_namespace
from kongming.tests.testbed.process import Process, Service, find_program, free_port

START_TIMEOUT = 30
SSHD_USER = "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n"
CONFIGURATION = """\
ListenAddress 127.0.0.1:{port}
HostKey {root}/host_key
AuthorizedKeysFile {root}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
"""


class Sshd(Service):
    """A server that lets the caller in by a key; a context manager.

    :param sockets: the folder of libvirt's, for those who log in there
    :ivar key: the private key
    """

    def __init__(self, root: Path, sockets: Path) -> None:
        root.mkdir()
        self._sockets = sockets
        self._root = root
        self.port = free_port()
        self.key = root / "key"
        self._process = Process([], root / "sshd.log")

    def start(self) -> None:
        """Return when it takes connections."""
        for key in (self.key, self._root / "host_key"):
            keygen = find_program("ssh-keygen", "openssh-client")
            subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        shutil.copy(self._root / "key.pub", self._root / "authorized_keys")
        program = _fetch()
        configuration = self._root / "sshd_config"
        text = CONFIGURATION.format(port=self.port, root=self._root)
        for part in program.glob("sshd-*"):
            text += f"{part.name.title().replace('-', '')}Path {part}\n"
        configuration.write_text(text)
        # Where and as whom it locks itself in before a client is known.
        (self._root / "run/sshd").mkdir(parents=True)
        (self._root / "run/libvirt").symlink_to(self._sockets)
        (self._root / "passwd").write_text(Path("/etc/passwd").read_text() + SSHD_USER)
        self._process.command = in_namespace(
            [str(program / "sshd"), "-D", "-e", "-f", str(configuration)],
            binds={Path("/run"): self._root / "run", Path("/etc/passwd"): self._root / "passwd"},
        )
        self._process.env = {**os.environ, "LD_LIBRARY_PATH": str(program)}
        self._process.start()
        self._process.wait_ready(self._listens, START_TIMEOUT, "sshd takes connections")

    def client(self, name: str, *, knows: bool = True) -> Path:
        """Make an ssh for ``?command=`` that has a known_hosts of its own: libvirt can't say."""
        known_hosts, command = self._root / f"{name}.known_hosts", self._root / name
        public = (self._root / "host_key.pub").read_text()
        known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}" if knows else "")
        command.write_text(f'#!/bin/sh\nexec ssh -o UserKnownHostsFile={known_hosts} "$@"\n')
        command.chmod(0o755)
        return command

    def _listens(self) -> bool:
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0

    def _end(self) -> None:
        self._process.terminate()


def _fetch() -> Path:
    """The folder with the program and what it needs; downloaded at the first use."""
    folder = cache_folder() / "sshd"
    keep(folder, _fill)
    return folder


def _fill(kept: Path, scratch: Path) -> None:
    listed = output("apt-cache", "depends", "openssh-server")
    # Those of its libraries that other packages do not need.
    for name in ("openssh-server", *re.findall(r"Depends: (lib(?:wrap|wtmpdb)\S+)", listed)):
        package = unpack(name, scratch / name)
        programs = (*package.glob("usr/sbin/sshd"), *package.glob("usr/lib/openssh/sshd-*"))
        for found in (*programs, *package.rglob("lib*.so.0")):
            shutil.copy(found, kept / found.name)
