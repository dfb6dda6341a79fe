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

"""Calls a command of a process that has loaded it: see ``preloaded``. It imports nothing of ours.

The first argument is the socket of that process, the second the program, the others are its own.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any


def called(
    program: str,
    arguments: Iterable[object],
    environment: Mapping[str, str],
    descriptors: Sequence[int | None],
) -> dict[str, Any]:
    """Describe a call.

    :param descriptors: of the standard streams; None for a closed one.
    """
    umask = os.umask(0)
    os.umask(umask)
    return {
        "program": program,
        "arguments": [*map(str, arguments)],
        "environment": dict(environment),
        "folder": os.getcwd(),  # noqa: PTH109
        "umask": umask,
        "streams": [number for number, each in enumerate(descriptors) if each is not None],
        "descriptors": [each for each in descriptors if each is not None],
    }


def send(server: socket.socket, call: dict[str, Any]) -> None:
    """Send a call to the process that has loaded the program."""
    data = json.dumps(call).encode() + b"\n"
    sent = socket.send_fds(server, [data], call["descriptors"])
    server.sendall(data[sent:])


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def main() -> int:
    """Return the exit status of the command, or end by the signal that ended it."""
    streams = [descriptor if _is_open(descriptor) else None for descriptor in range(3)]
    # No socket may take the place of a closed stream.
    while os.open(os.devnull, os.O_RDWR) < 3:
        pass
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(sys.argv[1])
        send(server, called(sys.argv[2], sys.argv[3:], os.environ, streams))
        with server.makefile() as answers:
            pid = int(answers.readline())
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda received, _frame: os.kill(pid, received))
            status = int(answers.readline())
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main())
