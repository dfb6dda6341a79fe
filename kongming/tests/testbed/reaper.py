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

"""Runs a command as an init does: what has lost its parent is reaped at once.

    python -m kongming.tests.testbed.reaper COMMAND

QEMU's parent is the first process of the machine. Some take seconds to see that it has ended,
one that is no init never does (a container's command), and libvirt waits for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import contextlib
import ctypes
import os
from pathlib import Path
import signal
import sys

PROC = Path("/proc")
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_PR_SET_CHILD_SUBREAPER = 36
# Who sent a signal: the kernel, to all processes of the terminal, so also to the command.
_SI_KERNEL = 0x80


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run a command to its end, and give its exit status as a shell does.

    It gets the signals that are sent to this process. What it has started and left running
    is killed when it ends.

    :raises OSError: there is no such command
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Ignored by who started us, children would leave without a status.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    awaited = {signal.SIGCHLD, *FORWARDED}
    former = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    try:
        child = os.posix_spawnp(
            command[0],
            list(command),
            os.environ if environment is None else environment,
            setsigmask=[],
            # Python ignores it.
            setsigdef=[signal.SIGPIPE],
        )
        while (status := _reaped(child)) is None:
            received = signal.sigwaitinfo(awaited)
            if received.si_signo != signal.SIGCHLD and received.si_code != _SI_KERNEL:
                os.kill(child, received.si_signo)
        _end_descendants()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
    return status if status >= 0 else 128 - status


def _reaped(child: int) -> int | None:
    """Reap all that have ended; give the exit status of one of them once it has."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                found = os.waitstatus_to_exitcode(ended[1])
    return found


def _end_descendants() -> None:
    # Children of those that are killed become ours.
    with contextlib.suppress(ChildProcessError):
        while True:
            for process in _children():
                os.kill(process, signal.SIGKILL)
            os.wait()


def _children() -> list[int]:
    found = []
    for stat in PROC.glob("[0-9]*/stat"):
        # Ended while we looked.
        with contextlib.suppress(OSError):
            # The name, in brackets, may hold anything.
            parent = stat.read_text(errors="replace").rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                found.append(int(stat.parent.name))
    return found


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
