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

"""Child processes that always end, and the one way to wait for a condition.

Everything in the testbed that runs a program, or waits for one, does it here.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
import functools
import os
from pathlib import Path
import random
import shutil
import signal
import socket
import subprocess
import time
from types import TracebackType
from typing import Protocol, Self, TypeVar

T = TypeVar("T")

INTERVAL = 0.02
#: Environment variable with a factor for all time limits, if the measured one does not suit.
PATIENCE = "KONGMING_TEST_PATIENCE"
_STEPS = 2_000_000
#: Seconds that these steps take on a machine for which the time limits were written.
_STEPS_S = 0.1
LOG_TAIL = 2000
# Below those that Linux gives to connections.
_PORTS = range(10_000, 32_768)


@functools.cache
def patience() -> float:
    """Return the factor for time limits: how much slower this machine is now than a usual one.

    It is measured once: a machine that is emulated, or busy with other work, takes longer for
    everything.
    """
    if given := os.environ.get(PATIENCE):
        return float(given)
    return _slowness()


def _slowness() -> float:
    begin = time.perf_counter()
    for _ in range(_STEPS):
        pass
    return max(1.0, (time.perf_counter() - begin) / _STEPS_S)


def wait_until(condition: Callable[[], T], timeout: float, what: str) -> T:
    """Return the first true value of a condition that is checked again and again.

    :param timeout: seconds on a usual machine that does nothing else; see :func:`patience`
    :param what: what is waited for, as the error will name it
    :raises TimeoutError: it did not become true in time
    """
    begin, factor = time.monotonic(), patience()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() - begin > timeout * factor:
            # Others may have come to work on this machine since the tests began.
            slower = _slowness()
            if slower < 1.5 * factor:
                raise TimeoutError(f"waited {timeout * factor:g} s in vain: {what}")
            factor = slower
        time.sleep(INTERVAL * patience())


def run(
    command: Sequence[str | Path], timeout: float = 120, *, check: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; what it writes is text.

    :param timeout: seconds on a usual machine that does nothing else; see :func:`patience`
    """
    return subprocess.run(
        command, capture_output=True, text=True, check=check, timeout=timeout * patience()
    )


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now.

    It is none that the kernel gives to connections before its server listens, and by chance none
    that other tests choose meanwhile.
    """
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def find_program(name: str, package: str) -> str:
    """The path of a program.

    :param package: the Debian package that has it, for the error message
    :raises FileNotFoundError: it is not installed
    """
    # Services live in sbin, which an ordinary user's PATH leaves out.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed: apt-get install {package}")
    return found


class Child(Protocol):
    """What :class:`Process` needs of a running program; :class:`subprocess.Popen` has it."""

    pid: int

    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int, /) -> None: ...
    def terminate(self) -> None: ...


class Process:
    """A program that runs in a session of its own and logs to a file."""

    def __init__(
        self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.command = list(command)
        self.log = log
        self.name = log.stem
        self.env = env
        self._child: Child | None = None

    def start(self) -> None:
        if self.running:
            raise RuntimeError(f"{self.name} runs already: stop it first")
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.env,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        if self._child is None:
            raise RuntimeError(f"{self.name} was never started: call start() first")
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def wait_ready(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        """Wait as `wait_until` does, but no longer than the process lives.

        :raises RuntimeError: the process ended; the message has the end of its log
        :raises TimeoutError: the condition did not become true in time
        """

        def ready_or_over() -> bool:
            if not self.running:
                raise RuntimeError(f"{self.name} ended before {what}: {self.log}:\n{self._tail()}")
            return condition()

        wait_until(ready_or_over, timeout, f"{what} (its log is {self.log})")

    def _tail(self) -> str:
        try:
            return self.log.read_text(errors="replace")[-LOG_TAIL:]
        except OSError as error:
            # Its folder may be gone, which is no reason to hide what has ended.
            return f"({error.strerror})"

    def terminate(self, timeout: float = 10) -> int | None:
        """End it with SIGTERM, and with SIGKILL after `timeout` seconds.

        :returns: its exit status, None if it was never started
        """
        if self._child is None:
            return None
        if self.running:
            self._child.terminate()
            # A paused process hears of it only once it runs again.
            self._child.send_signal(signal.SIGCONT)
            try:
                self._child.wait(timeout * patience())
            except subprocess.TimeoutExpired:
                self.kill()
        return self._child.returncode

    def kill(self) -> None:
        """End it and its process group at once, with SIGKILL."""
        if self._child is not None and self.running:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


class Service(abc.ABC):
    """What is started by entering its context and ended, come what may, by leaving it."""

    @abc.abstractmethod
    def start(self) -> None:
        """Return when it serves."""

    @abc.abstractmethod
    def _end(self) -> None:
        """Leave nothing behind; also right after a start that failed."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()
