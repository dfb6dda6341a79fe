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

"""The installed services, each as a process of its own.

They are started as a service manager would: they get the socket on which to report READY.
"""

from __future__ import annotations

from collections.abc import Mapping
import os
from pathlib import Path
import signal
import socket

from kongming.executor.store.record import Record
from kongming.executor.store.store import FILE_NAME, Store
from kongming.tests.testbed.process import Service, wait_until
from kongming.tests.testbed.program import BIN, Program

HANDLER = "kongming-notification-handler"
EXECUTOR = "kongming-executor"
CONDUCTOR = "kongming-conductor"


class ServiceProcess(Service):
    """One service; its configuration and log are in ``root``.

    :param program: the name of its command.
    :param configuration: what kongming.conf holds, as the text of it.
    """

    def __init__(
        self,
        root: Path,
        program: str,
        configuration: str,
        env: Mapping[str, str] | None = None,
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.conf = root / "kongming.conf"
        self.conf.write_text(configuration)
        # The abstract namespace has no length limit worth speaking of.
        self._address = f"kongming-{os.getpid()}-{id(self)}"
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind(f"\0{self._address}")
        self._notified.setblocking(False)
        self.process = Program(
            [str(BIN / program), "--config-file", str(self.conf)],
            root / "log",
            {**os.environ, "NOTIFY_SOCKET": f"@{self._address}", **(env or {})},
        )

    def start(self) -> None:
        """Start it and return when it has reported READY."""
        self.start_soon()
        self.wait_ready()

    def start_soon(self) -> None:
        """Start it and return at once."""
        self.is_ready()
        self.process.start()

    def wait_ready(self, timeout: float = 180) -> None:
        """Wait until it has reported READY."""
        self.process.wait_ready(self.is_ready, timeout, "the service has reported READY")

    def is_ready(self) -> bool:
        """Return whether it has reported READY since the last call."""
        try:
            return b"READY=1" in self._notified.recv(4096)
        except BlockingIOError:
            return False

    def stop(self, timeout: float = 15) -> int | None:
        """End it with SIGTERM; give its exit status."""
        return self.process.terminate(timeout)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()

    def reload(self) -> None:
        """Have it reload its configuration."""
        os.kill(self.process.pid, signal.SIGHUP)

    def log(self) -> str:
        """Give all that it has logged."""
        return self.process.log.read_text(errors="replace")

    def wait_log(self, text: str, times: int = 1, timeout: float = 30) -> None:
        """Wait until it has logged a text so many times."""
        wait_until(lambda: self.log().count(text) >= times, timeout, f"{text!r} in the log")

    def _end(self) -> None:
        self.stop()
        self._notified.close()


class HostProcess(ServiceProcess):
    """A service of a compute host, which keeps its state in ``root``, too."""

    def __init__(
        self,
        root: Path,
        program: str,
        *,
        connection_uri: str,
        host: str,
        options: str,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.host = host
        self.state_path = root / "state"
        self._store: Store | None = None
        super().__init__(
            root,
            program,
            f"[DEFAULT]\nhost = {host}\nstate_path = {self.state_path}\n"
            f"[libvirt]\nconnection_uri = {connection_uri}\n{options}",
            env,
        )

    def forget_store(self) -> None:
        """Open the store again at the next read: it was moved away."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def record(self, instance_uuid: str) -> Record | None:
        """Read what it keeps of an instance."""
        if self._store is None:
            if not (self.state_path / FILE_NAME).exists():
                return None
            self._store = Store(self.state_path, create=False)
        return self._store.get(instance_uuid)

    def _end(self) -> None:
        super()._end()
        self.forget_store()


class Daemon(HostProcess):
    """One ``kongming-notification-handler``.

    :param options: what kongming.conf holds besides, as the text of it.
    """

    def __init__(
        self,
        root: Path,
        *,
        transport_url: str,
        connection_uri: str,
        host: str,
        options: str = "",
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            root,
            HANDLER,
            connection_uri=connection_uri,
            host=host,
            options="[oslo_messaging_notifications]\ndriver = messagingv2\n"
            f"transport_url = {transport_url}\n{options}",
            env=env,
        )


class ExecutorDaemon(HostProcess):
    """One ``kongming-executor``."""

    def __init__(
        self,
        root: Path,
        *,
        transport_url: str,
        connection_uri: str,
        host: str,
        options: str = "",
    ) -> None:
        super().__init__(
            root,
            EXECUTOR,
            connection_uri=connection_uri,
            host=host,
            options=f"[DEFAULT]\ntransport_url = {transport_url}\n{options}",
        )
