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


"""A real libvirtd that also listens on a TCP port, without authentication."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kongming.tests.testbed.libvirtd import Libvirtd
from kongming.tests.testbed.process import free_port


class TcpLibvirtd(Libvirtd):
    """A :class:`Libvirtd` that ordinary users may connect to, too: its folder must let them."""

    def __init__(self, root: Path, *, controllers: Sequence[str] | None = None) -> None:
        super().__init__(root, controllers=controllers)
        self._port = free_port()

    def tcp_uri(self, name: str = "127.0.0.1") -> str:
        """Return the URI by a name or an address of this machine."""
        return f"qemu+tcp://{name}:{self._port}/system"

    def _configure(self, folder: Path) -> None:
        super()._configure(folder)
        conf = folder / "libvirtd.conf"
        text = conf.read_text().replace("listen_tcp = 0", "listen_tcp = 1")
        text = text.replace('unix_sock_rw_perms = "0700"', 'unix_sock_rw_perms = "0777"')
        conf.write_text(f'{text}tcp_port = "{self._port}"\nauth_tcp = "none"\n')

    def _daemon_command(self, configuration: Path) -> list[str]:
        return [*super()._daemon_command(configuration), "--listen"]
