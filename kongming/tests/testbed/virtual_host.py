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

"""A virtual host of several NUMA nodes, on which the machine's own programs run.

    python -m kongming.tests.testbed.virtual_host --nodes 2 --cgroup v1 -- COMMAND

It sees the machine's files where they are, and can change none but those in one folder:
all other changes stay in its memory. Its CPUs are emulated, so it needs no KVM.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
import json
import os
from pathlib import Path
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any, Self

from kongming.tests.testbed.boot_files import BootFiles
from kongming.tests.testbed.debian_package import cache_folder
from kongming.tests.testbed.process import Process, Service, find_program, patience
from kongming.tests.testbed.qemu import find_emulator

CGROUPS = ("v2", "v1")
BOOT_TIMEOUT = 300
HERE = Path(__file__).parent
# Of its own: what others left in the machine's is none of its business.
TMPDIR = "/var/tmp/virtual-host"
PORT = Path("/dev/vport0p1")
# Those of QEMU's own little network.
ADDRESS = "10.0.2.15"
SERVER = ("10.0.2.100", 5672)
# numa_balancing: nobody but us is to move memory. panic: the host ends with its first process.
# no_timer_check: an emulated timer that comes late on a busy machine is no broken one.
KERNEL_OPTIONS = (
    "console=ttyS0 quiet panic=-1 mitigations=off nokaslr numa_balancing=disable no_timer_check"
)
COMMAND_LINE = Path("/proc/cmdline")
SHAPE_OPTION = "kongming.shape="


@dataclass(frozen=True)
class Shape:
    """The shape of a virtual host.

    :param cgroup: which version of the control groups it has, "v2" or "v1"
    :param memory_mib: of all nodes together; CPUs and memory are shared out evenly
    """

    nodes: int = 2
    cgroup: str = "v2"
    cpus: int = 8
    memory_mib: int = 3072

    def __post_init__(self) -> None:
        if self.cgroup not in CGROUPS:
            raise ValueError(f"no such version of the control groups: {self.cgroup}")
        if self.cpus % self.nodes or self.memory_mib % self.nodes:
            raise ValueError(f"{self.nodes} nodes can't have the same share of all: {self}")

    @classmethod
    def of_this_host(cls) -> Self | None:
        """That of the virtual host that we run in; None elsewhere."""
        for option in COMMAND_LINE.read_text().split():
            if option.startswith(SHAPE_OPTION):
                return cls(**json.loads(option.removeprefix(SHAPE_OPTION).replace("'", '"')))
        return None

    @property
    def kernel_option(self) -> str:
        """The kernel's arguments: it keeps those that it doesn't know."""
        written = json.dumps(asdict(self), separators=(",", ":"))
        # The kernel takes a double quote for itself.
        return SHAPE_OPTION + written.replace('"', "'")


class VirtualHost(Service):
    """A host that is booted by entering its context; a context manager.

    :param root: an existing folder: its log is there, and the folder `share`
    :param reaches: a port of the machine's loopback interface, the one thing that the
        host reaches: it is at `SERVER` there
    """

    def __init__(self, root: Path, shape: Shape, *, reaches: int | None = None) -> None:
        self.shape = shape
        self._reaches = reaches
        #: The one folder that the host can change; it has the same path there.
        self.share = root.resolve() / "share"
        self._boot = BootFiles(cache_folder())
        self._initramfs = root / "initramfs"
        self._sockets: Path | None = None
        self._qemu = Process([], root / "virtual-host.log")
        self._agent: socket.socket | None = None
        self._received = b""

    @property
    def pid(self) -> int:
        return self._qemu.pid

    def start(self) -> None:
        """Return when it runs commands."""
        self.share.mkdir(exist_ok=True)
        self._boot.fetch()
        self._initramfs.write_bytes(self._boot.initramfs(self._own_files()))
        # A socket's path must be short.
        self._sockets = Path(tempfile.mkdtemp(prefix="kongming-"))
        self._qemu.command = self._command(self._sockets / "agent")
        self._qemu.start()
        self._qemu.wait_ready(self._connects, BOOT_TIMEOUT, "QEMU listens")
        if "ready" not in self._answer(
            time.monotonic() + BOOT_TIMEOUT * patience(), "it has booted"
        ):
            raise RuntimeError("the agent speaks another language")

    def _connects(self) -> bool:
        agent = socket.socket(socket.AF_UNIX)
        try:
            agent.connect(str(self._sockets and self._sockets / "agent"))
        except OSError:
            agent.close()
            return False
        self._agent = agent
        return True

    def run(
        self,
        command: Sequence[str],
        timeout: float,
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        echo: Callable[[str], object] = lambda text: None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command and return its exit status and its output.

        :param timeout: seconds on a usual machine
        :param env: is added to our own environment
        :param echo: is called with each piece of the output as it comes
        :raises TimeoutError: it has not ended in time; the host is of no use then
        :raises RuntimeError: the host is gone
        """
        if self._agent is None:
            raise RuntimeError("the virtual host is not running: enter its context first")
        request = {
            "command": list(command),
            "cwd": str(cwd or Path.cwd()),
            "env": {**os.environ, "HOME": "/root", "TMPDIR": TMPDIR, **(env or {})},
        }
        timeout *= patience()
        self._agent.settimeout(timeout)
        self._agent.sendall(json.dumps(request).encode() + b"\n")
        deadline = time.monotonic() + timeout
        output = ""
        while True:
            answer = self._answer(deadline, f"{command[0]} has ended; its output:\n{output}")
            if "status" in answer:
                return subprocess.CompletedProcess(command, answer["status"], output)
            output += answer["output"]
            echo(answer["output"])

    def _answer(self, deadline: float, what: str) -> dict[str, Any]:
        assert self._agent is not None
        while b"\n" not in self._received:
            self._agent.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                received = self._agent.recv(1 << 20)
            except TimeoutError:
                raise TimeoutError(f"in vain: {what}\n{self._log()}") from None
            if not received:
                raise RuntimeError(f"the virtual host ended before {what}\n{self._log()}")
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _log(self) -> str:
        return f"{self._qemu.log}:\n{self._qemu.log.read_text(errors='replace')[-4000:]}"

    def _own_files(self) -> dict[str, bytes]:
        agent = [sys.executable, "-IS", str(HERE / "virtual_host_agent.py"), str(PORT)]
        settings = {
            "ADDRESS": ADDRESS,
            "AGENT": shlex.join(agent),
            "CGROUP": self.shape.cgroup,
            "SHARE": str(self.share),
            "TMPDIR": TMPDIR,
        }
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in settings.items()]
        return {
            "init": (HERE / "virtual_host_init.sh").read_bytes(),
            "settings": "".join(lines).encode(),
        }

    def _command(self, agent: Path) -> list[str]:
        shape = self.shape
        per_node = shape.cpus // shape.nodes
        command = [
            # Whatever becomes of us, it doesn't outlive us.
            *(find_program("setpriv", "util-linux"), "--pdeathsig", "KILL"),
            find_emulator(),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-machine", "q35,usb=off,vmport=off,smbus=off,sata=off"),
            *("-accel", "tcg,thread=multi,tb-size=512", "-cpu", "qemu64"),
            *("-smp", f"{shape.cpus},sockets={shape.nodes},cores={per_node},threads=1"),
            *("-m", f"{shape.memory_mib}M"),
            *("-kernel", str(self._boot.kernel), "-initrd", str(self._initramfs)),
            *("-append", f"{KERNEL_OPTIONS} {shape.kernel_option}"),
            *("-serial", "stdio"),
            *("-chardev", f"socket,id=agent,path={agent},server=on,wait=off"),
            *("-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent"),
            *("-device", "virtio-rng-pci"),
            *("-netdev", self._network(), "-device", "virtio-net-pci,netdev=net,romfile="),
            *_folder("machine", Path("/"), "readonly=on,multidevs=remap"),
            *_folder("share", self.share, "multidevs=remap"),
        ]
        for node in range(shape.nodes):
            first = node * per_node
            size = shape.memory_mib // shape.nodes
            command += ["-object", f"memory-backend-ram,id=memory{node},size={size}M"]
            cpus = f"cpus={first}-{first + per_node - 1}"
            command += ["-numa", f"node,nodeid={node},{cpus},memdev=memory{node}"]
        return command

    def _network(self) -> str:
        network = "user,id=net,restrict=on,ipv6=off"
        if self._reaches is not None:
            # Not QEMU's own way to forward, which makes one connection in all.
            forward = shlex.join([str(self._boot.busybox), "nc", "127.0.0.1", str(self._reaches)])
            network += f",guestfwd=tcp:{SERVER[0]}:{SERVER[1]}-cmd:{_quoted(forward)}"
        return network

    def _end(self) -> None:
        self._qemu.kill()
        if self._agent is not None:
            self._agent.close()
            self._agent = None
        if self._sockets is not None:
            shutil.rmtree(self._sockets)
            self._sockets = None
        self._initramfs.unlink(missing_ok=True)


def _folder(tag: str, path: Path, options: str) -> list[str]:
    filesystem = f"local,id={tag},path={_quoted(str(path))},security_model=none,{options}"
    return ["-fsdev", filesystem, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


def _quoted(value: str) -> str:
    """A value as it is written among QEMU's options."""
    return value.replace(",", ",,")


def main(arguments: Sequence[str]) -> int:
    """Boot a host, run one command there, return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m kongming.tests.testbed.virtual_host")
    parser.add_argument("--nodes", type=int, default=2, help="NUMA nodes (2)")
    parser.add_argument("--cgroup", choices=CGROUPS, default="v2")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds (an hour)")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    parsed = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="kongming-") as root:
        host = VirtualHost(Path(root), Shape(parsed.nodes, parsed.cgroup))
        begin = time.monotonic()
        with host:
            print(f"booted in {time.monotonic() - begin:.1f} s", file=sys.stderr)
            done = host.run(parsed.command, parsed.timeout, echo=_print)
            return done.returncode


def _print(text: str) -> None:
    print(text, end="", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
