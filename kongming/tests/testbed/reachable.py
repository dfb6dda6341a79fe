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

"""A private libvirtd that is reached as those of clouds are: TCP, TLS, with log-ins or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import os
from pathlib import Path
import shutil
import subprocess
from typing import Any
from urllib.parse import quote

from kongming.hypervisor.opener import connect
from kongming.tests.testbed.libvirtd import Libvirtd
from kongming.tests.testbed.process import find_program, free_port

USER, PASSWORD = "kongming", "a-secret-word"
HOST = "localhost"


@dataclass(frozen=True)
class Certificates:
    """A CA of its own, and what it has signed for libvirt's server and clients, in a folder.

    :ivar folder: as libvirt's clients look for it with ``?pkipath=``.
    """

    folder: Path

    @classmethod
    def make(cls, folder: Path, name: str = HOST) -> Certificates:
        """Make them again; the server's is for a name."""
        folder.mkdir(parents=True)
        made = cls(folder)
        _openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=a CA"),
            *("-keyout", folder / "cakey.pem", "-out", folder / "cacert.pem"),
        )
        for what, subject in (("server", name), ("client", "a client")):
            made._sign(what, subject)
        return made

    def _sign(self, what: str, subject: str) -> None:
        key, request = self.folder / f"{what}key.pem", self.folder / f"{what}.csr"
        _openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={subject}"),
            *("-addext", f"subjectAltName=DNS:{subject.replace(' ', '-')}"),
            *("-keyout", key, "-out", request),
        )
        _openssl(
            *("x509", "-req", "-in", request, "-days", "2", "-copy_extensions", "copy"),
            *("-CA", self.folder / "cacert.pem", "-CAkey", self.folder / "cakey.pem"),
            *("-CAcreateserial", "-out", self.folder / f"{what}cert.pem"),
        )


class ReachableLibvirtd(Libvirtd):
    """A libvirtd that listens by socket, TCP and TLS.

    :param login: whether each of these requires a user name and a password (SASL).
    :param settings: what its libvirtd.conf has besides, or otherwise.
    :param env: variables of its own.
    """

    def __init__(
        self,
        root: Path,
        *,
        login: bool = False,
        settings: Mapping[str, str | int | list[str]] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(root)
        self._login = login
        self._more = settings or {}
        self._daemon.env = {**os.environ, **(env or {})}
        self.tcp_port, self.tls_port = free_port(), free_port()
        self.certificates = root / "pki"
        self.auth_file = root / "auth.conf"
        self._binds[Path("/etc/sasl2")] = root / "sasl2"
        # Whom it knows: it checks who has opened its socket.
        self._known = [root / "known" / name for name in ("passwd", "group")]
        self._binds |= {Path("/etc", known.name): known for known in self._known}

    def _make_namespaces(self) -> None:
        self._known[0].parent.mkdir(parents=True)
        for known in self._known:
            shutil.copy(Path("/etc", known.name), known)
        super()._make_namespaces()

    def meet(self, *lines: str) -> None:
        """Have it know a user and a group, by their lines of /etc/passwd and /etc/group."""
        for known, line in zip(self._known, lines, strict=True):
            with known.open("a") as file:
                file.write(line)

    @property
    def folder(self) -> Path:
        """Where its sockets are."""
        return self._sockets

    @property
    def uri(self) -> str:
        """The Unix socket, with the log-in that it needs."""
        return f"{super().uri}&authfile={quote(str(self.auth_file))}"

    def over(self, transport: str, **parameters: object) -> str:
        """Return the URI by which it is reached over ``unix``, ``tcp`` or ``tls``."""
        if transport == "unix":
            where, parameters = "", {"socket": self.socket_path, **parameters}
        else:
            where = f"{HOST}:{self.tls_port if transport == 'tls' else self.tcp_port}"
        if transport == "tls":
            parameters = {"pkipath": self.certificates, **parameters}
        query = "&".join(f"{name}={quote(str(value))}" for name, value in parameters.items())
        return f"qemu+{transport}://{where}/system?{query}"

    def settings(self) -> Mapping[str, str | int | list[str]]:
        auth = "sasl" if self._login else "none"
        return {
            "listen_addr": "127.0.0.1",
            "listen_tcp": 1,
            "tcp_port": str(self.tcp_port),
            "listen_tls": 1,
            "tls_port": str(self.tls_port),
            "auth_tcp": auth,
            "auth_tls": auth,
            "auth_unix_rw": auth,
            "ca_file": str(self.certificates / "cacert.pem"),
            "cert_file": str(self.certificates / "servercert.pem"),
            "key_file": str(self.certificates / "serverkey.pem"),
            **self._more,
        }

    def connect(self) -> Any:
        return connect(self.uri)

    def _daemon_command(self, configuration: Path) -> list[str]:
        return [*super()._daemon_command(configuration), "--listen"]

    def _configure(self, folder: Path) -> None:
        super()._configure(folder)
        if self.certificates.exists():
            return
        Certificates.make(self.certificates)
        database = folder / "passwd.db"
        (self.root / "sasl2/libvirt.conf").write_text(
            f"mech_list: scram-sha-256 digest-md5\nsasldb_path: {database}\n"
        )
        subprocess.run(
            [
                *(find_program("saslpasswd2", "sasl2-bin"), "-p", "-c", "-a", "libvirt"),
                *("-f", str(database), USER),
            ],
            input=PASSWORD.encode(),
            check=True,
        )
        self.auth_file.write_text(auth_conf())
        self.auth_file.chmod(0o600)


def auth_conf(user: str = USER, password: str = PASSWORD, host: str = HOST) -> str:
    """Return the text of an auth.conf that has a log-in for a host."""
    return (
        f"[credentials-of-it]\nauthname={user}\npassword={password}\n\n"
        f"[auth-libvirt-{host}]\ncredentials=of-it\n"
    )


def _openssl(*arguments: object) -> None:
    command = [find_program("openssl", "openssl"), *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)
