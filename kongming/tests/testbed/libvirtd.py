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

"""A private, real libvirtd with the QEMU driver.

It neither sees nor changes anything of the machine's own libvirt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import os
from pathlib import Path
import shutil
import socket
import tempfile
from typing import Any
from urllib.parse import quote
import uuid

import libvirt

from kongming import exception
from kongming.tests.testbed.cgroup import Cgroup
from kongming.tests.testbed.namespace import in_namespace, in_namespace_of
from kongming.tests.testbed.process import Process, Service, find_program
from kongming.tests.testbed.qemu import empty_file, end_guests, masked_from_qemu, qemu_conf

START_TIMEOUT = 60
HOLDER = ("sleep", "infinity")
# sockaddr_un's limit, less the longest name that libvirtd puts into the folder.
LONGEST_SOCKET_FOLDER = 107 - len("/libvirt-admin-sock")

# What libvirtd.conf holds, unless a kind of libvirtd differs.
SETTINGS: Mapping[str, str | int] = {
    "listen_tls": 0,
    "listen_tcp": 0,
    "auth_unix_ro": "none",
    "auth_unix_rw": "none",
    "unix_sock_ro_perms": "0700",
    "unix_sock_rw_perms": "0700",
    # A migration keeps one of them until it ends.
    "max_workers": 64,
}


class Libvirtd(Service):
    """A libvirtd that keeps everything in `root`; a context manager.

    Needs root's rights, and mounts in a namespace of its own; `session_libvirtd` has one that
    needs neither. Guests outlive the daemon, but not the context.

    :param controllers: those of the control groups that guests get; None: all that there are
    :param host_name: what it takes for the name of its host; None: the machine's
    :param folders: those that it has for itself, where others have their own
    """

    MODE = "system"

    def __init__(
        self,
        root: Path,
        *,
        controllers: Sequence[str] | None = None,
        host_name: str | None = None,
        folders: Sequence[Path] = (),
    ) -> None:
        self.root = root
        self._host_name = host_name
        self._sockets = root / "sock"
        if len(str(self._sockets)) > LONGEST_SOCKET_FOLDER:
            self._sockets = Path(tempfile.gettempdir(), f"kongming-{uuid.uuid4()}")
        # The machine's /run also has D-Bus, through which systemd would be notified.
        self._binds = {
            Path("/etc/libvirt"): root / "etc",
            Path("/var/lib/libvirt"): root / "lib",
            Path("/var/cache/libvirt"): root / "cache",
            Path("/var/log/libvirt"): root / "log",
            Path("/var/run").resolve(): root / "run",
            Path("/run"): root / "run",
            **{folder: root / folder.name for folder in folders},
        }
        self._controllers = controllers
        self._cgroup = Cgroup() if self.has_control_groups else None
        # Made once and kept: a v2 group that has guests takes no process any more,
        # so a daemon of later could not make that group its root again.
        self._namespaces = Process([], root / "namespaces.log")
        self._daemon = Process([], root / "libvirtd.log")

    @property
    def has_control_groups(self) -> bool:
        """Tell whether guests get control groups of their own."""
        return self._controllers is None or bool(self._controllers)

    @property
    def uri(self) -> str:
        return f"qemu:///{self.MODE}?socket={quote(str(self.socket_path))}"

    @property
    def pid(self) -> int:
        return self._daemon.pid

    def start(self) -> None:
        """Return when libvirt answers and knows the emulator.

        Guests of before are found again.
        """
        self._daemon.command = self._command()
        self._daemon.start()
        self._daemon.wait_ready(self._answers, START_TIMEOUT, "libvirtd takes connections")

    def stop(self) -> None:
        """End the daemon in its own time; guests live on."""
        self._daemon.terminate()

    def kill(self) -> None:
        """End the daemon with SIGKILL; guests live on."""
        self._daemon.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Make the daemon hang: connections stay open, nothing answers."""
        self._daemon.pause()

    def resume(self) -> None:
        self._daemon.resume()

    def _command(self) -> list[str]:
        """Prepare what the daemon needs, unless it is there already; give its command line."""
        if not self._namespaces.running:
            self._make_namespaces()
        return in_namespace_of(
            self._namespaces.pid,
            self._daemon_command(Path("/etc/libvirt")),
            self._cgroup,
            host_name=self._host_name is not None,
        )

    def _daemon_command(self, configuration: Path) -> list[str]:
        return [
            find_program("libvirtd", "libvirt-daemon"),
            *("--config", str(configuration / "libvirtd.conf")),
            *("--pid-file", str(self.root / "libvirtd.pid")),
        ]

    def settings(self) -> Mapping[str, str | int | list[str]]:
        """Give what its libvirtd.conf has besides, or otherwise."""
        return {}

    def inside(self, command: Sequence[str]) -> list[str]:
        """Give the command line that runs a command as on its host, once it was started."""
        has_name = self._host_name is not None
        return in_namespace_of(self._namespaces.pid, command, None, host_name=has_name)

    def connect(self) -> Any:
        """Open a connection that may do anything."""
        return libvirt.open(self.uri)

    def _configure(self, folder: Path) -> None:
        for each in (folder, self._sockets):
            each.mkdir(parents=True, exist_ok=True)
        (folder / "qemu.conf").write_text(
            qemu_conf(root=self.MODE == "system", controllers=self._controllers)
        )
        settings = {
            **SETTINGS,
            "unix_sock_dir": str(self._sockets),
            # Else a guest could not be migrated from one to another on the same machine.
            "host_uuid": str(uuid.uuid4()),
            **self.settings(),
        }
        (folder / "libvirtd.conf").write_text(
            "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
        )

    @property
    def socket_path(self) -> Path:
        return self._sockets / "libvirt-sock"

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(self.socket_path))
            except OSError:
                return False
            return True

    def _answers(self) -> bool:
        if not self._listens():
            return False
        try:
            connection = self.connect()
            # Probes the emulator, which the first guest would wait for otherwise.
            connection.getCapabilities()
            connection.close()
        except (libvirt.libvirtError, exception.HypervisorUnavailable):
            # It is on its way out, maybe.
            return False
        return True

    def _make_namespaces(self) -> None:
        if os.geteuid() != 0:
            raise PermissionError("a private libvirtd needs namespaces of its own: run it as root")
        for folder in self._binds.values():
            if not folder.is_file():
                folder.mkdir(parents=True, exist_ok=True)
        empty_file(self.root)
        self._configure(self.root / "etc")
        if self._cgroup is not None:
            self._cgroup.create()
        self._namespaces.command = self._hold_namespaces()
        self._namespaces.start()
        comm = Path(f"/proc/{self._namespaces.pid}/comm")
        # The shell that makes them becomes the holder once it is through.
        self._namespaces.wait_ready(
            lambda: comm.read_text().strip() == HOLDER[0], START_TIMEOUT, "the mounts are made"
        )

    def _hold_namespaces(self) -> list[str]:
        return in_namespace(
            HOLDER,
            binds=self._binds,
            masks=masked_from_qemu(),
            empty_file=self.root / "empty",
            cgroup=self._cgroup,
            host_name=self._host_name,
        )

    def _end(self) -> None:
        self._daemon.terminate()
        end_guests(self.root)
        self._namespaces.kill()
        if self._cgroup is not None:
            self._cgroup.remove()
        shutil.rmtree(self._sockets, ignore_errors=True)
