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

"""The first process of a virtual host: runs commands for the machine that it is on.

It is run by the path of its file, so that it starts quickly: it imports nothing of ours.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
import subprocess
import sys
from typing import BinaryIO, Never

CHUNK = 65536


def main(port: Path) -> Never:
    """Run commands until the machine is gone, then end the host."""
    server = os.fork()
    if server == 0:
        with port.open("r+b", buffering=0) as stream:
            serve(stream)
        sys.exit()
    # Whoever lost its parent is the first process's to bury: libvirt waits for it.
    while os.wait()[0] != server:
        pass
    # The kernel gives up when its first process ends, and QEMU with it.
    sys.exit()


def serve(stream: BinaryIO) -> None:
    """Answer each request, a line of JSON, with lines of JSON."""
    send(stream, ready=Path("/proc/uptime").read_text().split()[0])
    # Not in the stream's own way, which reads ahead.
    for line in iter(stream.readline, b""):
        run(stream, **json.loads(line))


def run(stream: BinaryIO, command: list[str], cwd: str, env: dict[str, str]) -> None:
    """Pass on a command's output as it comes, and its exit status at the end."""
    try:
        child = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        send(stream, output=f"{error}\n")
        send(stream, status=127)
        return
    assert child.stdout is not None
    while chunk := os.read(child.stdout.fileno(), CHUNK):
        send(stream, output=chunk.decode(errors="replace"))
    send(stream, status=child.wait())


def send(stream: BinaryIO, **answer: object) -> None:
    waiting = memoryview(json.dumps(answer).encode() + b"\n")
    while waiting:
        waiting = waiting[stream.write(waiting) :]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
