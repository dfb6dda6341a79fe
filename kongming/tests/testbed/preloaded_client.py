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

The first argument is the socket of that process, the others are those of the command.
"""

import json
import os
import signal
import socket
import sys


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def main() -> int:
    """Return the exit status of the command, or end by the signal that ended it."""
    streams = [descriptor for descriptor in range(3) if _is_open(descriptor)]
    # No socket may take the place of a closed stream.
    while os.open(os.devnull, os.O_RDWR) < 3:
        pass
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(sys.argv[1])
        call = {
            "arguments": sys.argv[2:],
            "environment": dict(os.environ),
            "folder": os.getcwd(),  # noqa: PTH109
            "streams": streams,
        }
        data = json.dumps(call).encode() + b"\n"
        sent = socket.send_fds(server, [data], streams)
        server.sendall(data[sent:])
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
