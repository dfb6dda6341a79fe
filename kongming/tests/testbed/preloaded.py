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

"""Commands that need not load their modules: a process that has loaded them forks for each.

An installed command spends a second or two in imports. With :class:`Preloaded` a module of tests
spends them once: the command's arguments, environment, streams, signals and exit status are those
of a process of its own all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from typing import Any, NamedTuple

from cliff import command
import stevedore

from kongming.tests.testbed.process import Service

_CLIENT = Path(__file__).with_name("preloaded_client.py")
_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


class Preloaded(Service):
    """A console script whose modules are loaded; a context manager.

    :param program: the name of the console script.
    :param groups: groups of entry points that are loaded, too: how their names begin.
    :param modules: what commands import only when they run.
    :ivar command: runs it, with the arguments that follow.
    """

    def __init__(
        self, program: str, *, groups: Sequence[str], modules: Sequence[str] = ()
    ) -> None:
        self._program = program
        self._loaded = json.dumps([*groups]), json.dumps([*modules])
        self._folder = tempfile.TemporaryDirectory(prefix="kongming-")
        self._address = Path(self._folder.name) / "socket"
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-IS", str(_CLIENT), str(self._address)]

    def start(self) -> None:
        """Return at once: the first command waits until the modules are loaded."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self._address))
            listener.listen()
            number = listener.fileno()
            # It ends with the other end of its standard input.
            self._server = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(number), self._program, *self._loaded],
                stdin=subprocess.PIPE,
                pass_fds=[number],
            )

    def _end(self) -> None:
        if self._server is not None:
            self._server.communicate()
        self._folder.cleanup()


class _Call(NamedTuple):
    """A command that was called.

    :ivar streams: the caller's open standard streams, by descriptor: the descriptor here.
    """

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    streams: dict[int, int]


def _received(connection: socket.socket) -> _Call:
    data, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    with connection.makefile("rb") as rest:
        told = json.loads(data + (b"" if data.endswith(b"\n") else rest.readline()))
    streams = dict(zip(told["streams"], descriptors, strict=True))
    return _Call(told["arguments"], told["environment"], told["folder"], streams)


def _next_call(listener: socket.socket) -> _Call | None:
    """Fork for each call, and return it in the child; return None when the tests end."""
    while True:
        if listener not in select.select([listener, sys.stdin], [], [])[0]:
            return None
        connection, _ = listener.accept()
        with connection:
            call = _received(connection)
            pid = os.fork()
            if pid == 0:
                listener.close()
                return call
            for each in call.streams.values():
                os.close(each)
            connection.sendall(f"{pid}\n".encode())
            _, status = os.waitpid(pid, 0)
            connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _take_over(program: str, call: _Call) -> None:
    """Have this process be the one that was called."""
    os.environ.clear()
    os.environ.update(call.environment)
    time.tzset()
    os.chdir(call.folder)
    sys.argv = [program, *call.arguments]
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
    for each in modules:
        importlib.import_module(each)
    found = entry_points()
    for group in found.groups:
        if group.startswith(tuple(groups)):
            for point in found.select(group=group):
                with contextlib.suppress(ImportError):
                    point.load()
    stevedore.ExtensionManager("none")
    command._get_distributions_by_modules()
    # Else each child, when it ends, looks at all that is loaded, and so copies its memory.
    gc.freeze()


def main() -> None:
    """Load a console script, and run it in a child for each call."""
    descriptor, program, groups, modules = sys.argv[1:]
    (script,) = entry_points(group="console_scripts", name=program)
    run = script.load()
    _load(json.loads(groups), json.loads(modules))
    with socket.socket(fileno=int(descriptor)) as listener:
        call = _next_call(listener)
    if call is not None:
        _take_over(program, call)
        sys.exit(run())


if __name__ == "__main__":
    main()
