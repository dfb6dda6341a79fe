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

"""What all benchmarks share: the services, the rows of the table, the process's figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
import sys

import kongming.cmd.backend  # noqa: F401  (chooses oslo.service's backend)
from kongming.tests.testbed.broker import Broker
from kongming.tests.testbed.daemon import Daemon
from kongming.tests.testbed.libvirtd import Libvirtd
from kongming.tests.testbed.process import Process

HOST = "compute-1"
KEY = "kongming-vcpu-pinning"


@dataclass(frozen=True)
class Row:
    """One line of the table; texts, with their units."""

    what: str
    ours: str
    floor: str
    ratio: str
    goal: str


@dataclass(frozen=True)
class Bed:
    """The services that all parts share."""

    root: Path
    broker: Broker
    libvirtd: Libvirtd

    def daemon(self, name: str, exchange: str, options: str = "") -> Daemon:
        """Give a service of its own that listens on one exchange."""
        return Daemon(
            self.root / name,
            transport_url=self.broker.transport_url(),
            connection_uri=self.libvirtd.uri,
            host=HOST,
            options=f"[notification_handler]\nexchange = {exchange}\n"
            f"pool = {exchange}.$host\n{options}",
        )

    @contextmanager
    def floor(self, script: str, *arguments: str, out: Path) -> Iterator[Process]:
        """Run a floor: a script that writes to ``out`` once it is ready."""
        command = [sys.executable, script, "--floor", *arguments, str(out)]
        process = Process(command, out.with_suffix(".log"))
        process.start()
        try:
            process.wait_ready(out.exists, 60, f"the floor {arguments[0]} is ready")
            yield process
        finally:
            process.terminate()


def cpu_time(pid: int) -> float:
    """CPU time of all threads, in seconds: to the nanosecond, unlike that of ps."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def pss(pid: int) -> float:
    """Proportional set size in MB; the service is one process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise LookupError(f"the kernel does not report the memory of process {pid}")
