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

"""Console scripts whose modules are loaded once: each run is a fork of that process.

An installed command spends a second or two in imports. With :class:`Preloaded` the tests spend
them once: the command's arguments, environment, streams, signals and exit status are those of a
process of its own all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import gc
import importlib
from importlib.metadata import entry_points
import json
import os
from pathlib import Path
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any, BinaryIO, NamedTuple

from kongming.tests.testbed import preloaded_client
from kongming.tests.testbed.process import Service

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


class Preloaded(Service):
    """Console scripts whose modules are loaded; a context manager.

    :param programs: the names of the console scripts.
    :param groups: groups of entry points that are loaded, too: how their names begin.
    :param modules: what commands import only when they run.
    :param inside: the command line in which it runs, such as that of a namespace.
    """

    def __init__(
        self,
        *programs: str,
        groups: Sequence[str] = (),
        modules: Sequence[str] = (),
        inside: Sequence[str] = (),
    ) -> None:
        self.programs = programs
        self._inside = inside
        self._loaded = json.dumps([[*programs], [*groups], [*modules]])
        self._folder = tempfile.TemporaryDirectory(prefix="kongming-")
        self._address = str(Path(self._folder.name) / "socket")
        self._server: subprocess.Popen[bytes] | None = None

    def command(self, program: str) -> list[str]:
        """Return what runs a program, with the arguments that follow."""
        return [sys.executable, "-IS", preloaded_client.__file__, self._address, program]

    def spawn(
        self, program: str, arguments: Sequence[str], env: Mapping[str, str], log: BinaryIO
    ) -> Spawned:
        """Start a program in a session of its own, without input."""
        with Path(os.devnull).open("rb") as nothing:
            call = preloaded_client.called(
                program, arguments, env, [nothing.fileno(), log.fileno(), log.fileno()]
            )
            return Spawned(self._address, {**call, "session": True})

    def start(self) -> None:
        """Return at once: the first command waits until the modules are loaded."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self._address)
            listener.listen(64)
            number = listener.fileno()
            # It ends with the other end of its standard input.
            self._server = subprocess.Popen(
                [*self._inside, sys.executable, "-P", "-m", __name__, str(number), self._loaded],
                stdin=subprocess.PIPE,
                pass_fds=[number],
            )

    def _end(self) -> None:
        if self._server is not None:
            self._server.communicate()
        self._folder.cleanup()


class Spawned:
    """A running program of :meth:`Preloaded.spawn`, as :class:`subprocess.Popen` has it."""

    def __init__(self, address: str, call: dict[str, Any]) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(address)
        preloaded_client.send(self._server, call)
        self._answers = self._server.makefile("rb")
        self.pid = int(self._answers.readline())
        self._status: int | None = None

    @property
    def returncode(self) -> int | None:
        return self._status

    def poll(self) -> int | None:
        """Return the exit status; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return the exit status.

        :raises TimeoutExpired: as Popen does
        """
        if self._status is None:
            if not select.select([self._server], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            # Without an answer the process that had forked it has ended.
            self._status = int(self._answers.readline() or -signal.SIGKILL)
            self._answers.close()
            self._server.close()
        return self._status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)


#: What :func:`shared` has begun.
_shared: Preloaded | None = None


@contextlib.contextmanager
def sharing(server: Preloaded) -> Iterator[None]:
    """Have the testbed's services run by this process, where nothing else is between."""
    global _shared
    with server:
        _shared = server
        try:
            yield
        finally:
            _shared = None


def shared(path: str) -> Preloaded | None:
    """Return the process that has loaded an installed program; None if there is none."""
    program = Path(path)
    if _shared is None or program.parent != Path(sys.executable).parent:
        return None
    return _shared if program.name in _shared.programs else None


class _Call(NamedTuple):
    """A command that was called.

    :ivar streams: the caller's open standard streams, by descriptor: the descriptor here.
    :ivar session: whether it gets a session of its own.
    """

    program: str
    arguments: list[str]
    environment: dict[str, str]
    folder: str
    umask: int
    streams: dict[int, int]
    session: bool


def _received(connection: socket.socket) -> _Call:
    data, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    with connection.makefile("rb") as rest:
        call = json.loads(data + (b"" if data.endswith(b"\n") else rest.readline()))
    streams = dict(zip(call.pop("streams"), descriptors, strict=True))
    call.pop("descriptors", None)
    return _Call(**{"session": False, **call}, streams=streams)


def _next_call(listener: socket.socket) -> _Call | None:
    """Fork for each call, and return it in the child; return None when the tests end."""
    children: dict[int, socket.socket] = {}
    wakeup, woken = socket.socketpair()
    woken.setblocking(False)
    signal.set_wakeup_fd(woken.fileno())
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    while True:
        ready = select.select([listener, sys.stdin, wakeup], [], [])[0]
        if wakeup in ready:
            wakeup.recv(1 << 12)
            _report_ended(children)
        if listener in ready:
            connection, _ = listener.accept()
            call = _received(connection)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for each in (listener, connection, wakeup, woken, *children.values()):
                    each.close()
                return call
            for descriptor in call.streams.values():
                os.close(descriptor)
            children[pid] = connection
            connection.sendall(f"{pid}\n".encode())
        elif sys.stdin in ready:
            return None


def _report_ended(children: dict[int, socket.socket]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            # Its caller may have ended before.
            with children.pop(ended[0]) as connection, contextlib.suppress(OSError):
                connection.sendall(f"{os.waitstatus_to_exitcode(ended[1])}\n".encode())


def _take_over(call: _Call) -> None:
    """Have this process be the one that was called."""
    if call.session:
        os.setsid()
    os.umask(call.umask)
    os.environ.clear()
    os.environ.update(call.environment)
    time.tzset()
    os.chdir(call.folder)
    sys.argv = [str(Path(sys.executable).with_name(call.program)), *call.arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    for descriptor, (name, mode) in enumerate(_STREAMS):
        stream: Any = None
        if descriptor in call.streams:
            os.dup2(call.streams[descriptor], descriptor)
            os.close(call.streams[descriptor])
            stream = open(  # noqa: SIM115
                descriptor,
                mode,
                encoding=encoding or "utf-8",
                errors=errors or ("backslashreplace" if name == "stderr" else "strict"),
                closefd=False,
            )
        else:
            os.close(descriptor)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _load(groups: Sequence[str], modules: Sequence[str]) -> None:
    """Load entry points, modules, and what the libraries for entry points keep in memory."""
    # Imported here: those who only call need neither.
    from cliff import command
    import stevedore

    for each in modules:
        importlib.import_module(each)
    found = entry_points()
    for group in found.groups:
        if groups and group.startswith(tuple(groups)):
            for point in found.select(group=group):
                with contextlib.suppress(ImportError):
                    point.load()
    stevedore.ExtensionManager("none")
    command._get_distributions_by_modules()
    # Else each child, when it ends, looks at all that is loaded, and so copies its memory.
    gc.freeze()


def main() -> None:
    """Load console scripts, and run one in a child for each call."""
    programs, groups, modules = json.loads(sys.argv[2])
    scripts = {
        program: next(iter(entry_points(group="console_scripts", name=program))).load()
        for program in programs
    }
    _load(groups, modules)
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        call = _next_call(listener)
    if call is not None:
        _take_over(call)
        sys.exit(scripts[call.program]())


if __name__ == "__main__":
    main()
