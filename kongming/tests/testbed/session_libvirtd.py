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

"""A private libvirtd for a machine that allows no mounts, as a plain container.

It serves one user (libvirt's session mode), so all its paths can be chosen, and it never makes
control groups. Its guests are that user's: libvirt may pin them without further rights.
"""

from __future__ import annotations

import os
from pathlib import Path
import pwd
import shutil

from kongming.tests.testbed.abilities import Abilities
from kongming.tests.testbed.libvirtd import Libvirtd
from kongming.tests.testbed.process import find_program

# libvirt's session mode is not for root. On every Debian, and without rights to anything.
USER = "nobody"


class SessionLibvirtd(Libvirtd):
    """As `Libvirtd`; every folder above `root` must let other users through."""

    MODE = "session"

    def __init__(self, root: Path) -> None:
        super().__init__(root, controllers=())

    def _command(self) -> list[str]:
        folders = {
            f"XDG_{name}": self.root / folder
            for name, folder in {
                "CONFIG_HOME": "etc",
                "CACHE_HOME": "cache",
                "DATA_HOME": "lib",
                "RUNTIME_DIR": "run",
            }.items()
        }
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        configuration = folders["XDG_CONFIG_HOME"] / "libvirt"
        if not configuration.exists():
            self._configure(configuration)
        self._daemon.env = {**os.environ, **{name: str(path) for name, path in folders.items()}}
        return [*self._as_user(), *self._daemon_command(configuration)]

    def _as_user(self) -> list[str]:
        if os.geteuid() != 0:
            return []
        user = pwd.getpwnam(USER)
        for folder in (self.root, self._sockets):
            for path in (folder, *folder.rglob("*")):
                shutil.chown(path, user.pw_uid, user.pw_gid)
        return [
            *(find_program("setpriv", "util-linux"), "--clear-groups"),
            *("--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--"),
        ]


def private_libvirtd(root: Path, abilities: Abilities) -> Libvirtd:
    """Return the libvirtd, not started yet, that can do the most on this machine."""
    if abilities.no_mounts is not None:
        return SessionLibvirtd(root)
    return Libvirtd(root, controllers=None if abilities.no_control_groups is None else ())
