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

"""The demonstrations: what Kongming does to a guest, seen on its vCPU threads.

Called by tools/demo, which sets up what this needs. The story is told in a process of its own,
so that whatever happens there, nothing is left behind.
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
import select
import shutil
import signal
import sys
import tempfile
import traceback

from kongming.tests.testbed import reaper, threads
from kongming.tests.testbed.abilities import abilities
from kongming.tests.testbed.folder import fit_folder
from kongming.tests.testbed.qemu import without_kvm

INSIDE = "--inside"
SERVICES = "--services"
STANDALONE = "--standalone"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What a shell says of a command whose reader has gone.
NO_READER = 128 + signal.SIGPIPE
NEXT = {
    "": "Nova's notifications, and all in one process",
    SERVICES: "the same with a RabbitMQ, a libvirtd and the installed service",
    STANDALONE: "the HTTP API instead of Nova: an allocation map, a time window",
}


class _Interrupted(BaseException):
    """A signal has come: all that was started is ended on the way out."""


#: The signal that has come. libvirt's Python binding makes other errors of exceptions.
_received: list[int] = []


def main(arguments: list[str]) -> int:
    """Show the demonstration that was chosen; 0 if the threads ran as asked."""
    mode = arguments[0] if arguments else ""
    for needed in (Path("/proc/self/status"), threads.ONLINE):
        if not needed.exists():
            return _failed(f"{needed} is not there: mount /proc and /sys")
    # They wait until there is somebody to get them.
    signal.pthread_sigmask(signal.SIG_BLOCK, reaper.FORWARDED)
    root = Path(tempfile.mkdtemp(prefix="kongming-demo-", dir=fit_folder()))
    # Where libvirtd runs as another user it must get at its own folder.
    root.chmod(0o711)
    command = [sys.executable, __file__, INSIDE, mode, str(root)]
    if mode != SERVICES:
        # The driver in our process would write to our stderr.
        os.environ["LIBVIRT_LOG_OUTPUTS"] = f"3:file:{root}/libvirt.log"
        if abilities().no_mounts is None:
            command = without_kvm(command, root)
    status = reaper.run(command)
    if status == 1:
        print(f"The logs are kept in {root}", file=sys.stderr)
    else:
        shutil.rmtree(root, ignore_errors=True)
    return status


def tell(mode: str, root: Path) -> int:
    """Tell a demonstration's story; what goes wrong is said in one line."""
    for number in SIGNALS:
        # nohup, and a shell that runs us in the background, have them ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end_once)
    # Short as the root is, and with room.
    tempfile.tempdir = str(root)
    try:
        return _tell(mode, root)
    except (_Interrupted, Exception) as error:  # noqa: BLE001
        if _received:
            return 128 + _received[0]
        if _has_no_reader():
            return NO_READER
        # The folder may be what went wrong.
        with contextlib.suppress(OSError):
            (root / "traceback").write_text(traceback.format_exc())
        return _failed(f"{error}")


def _tell(mode: str, root: Path) -> int:
    # Imported here: neither needs anything of the other, and a signal may come before.
    # The first chooses oslo.service's backend for all that follow.
    import kongming.cmd.backend  # noqa: F401

    if mode == STANDALONE:
        import demo_standalone

        good = demo_standalone.show(root)
    else:
        import demo_notification

        good = demo_notification.show(root, with_services=mode == SERVICES)
    if len(threads.online_cpus()) == 1:
        print("This machine has a single CPU: its threads could not have run elsewhere.")
    print()
    if not good:
        print("NOT as asked: see WRONG above")
        return 1
    print("Every vCPU thread ran where it was asked to. Try next:")
    for other, what in NEXT.items():
        if other != mode:
            print(f"   tools/demo {other:<12}  {what}")
    print(f"   {'README.rst':<23}  how to install it on a compute host")
    return 0


def _end_once(number: int, _frame: object) -> None:
    # Nothing is to disturb the way out.
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    _received.append(number)
    print("Interrupted: ending what was started", file=sys.stderr)
    raise _Interrupted


def _has_no_reader() -> bool:
    stdout = select.poll()
    # Only what can't be masked: an error, or that it was hung up.
    stdout.register(1, 0)
    return bool(stdout.poll(0))


def _failed(why: str) -> int:
    print(f"ERROR: {why}", file=sys.stderr)
    return 1


def _run(arguments: list[str]) -> int:
    # What is shown is seen at once, whatever reads it, and in any locale.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        if arguments[:1] == [INSIDE]:
            return tell(arguments[1], Path(arguments[2]))
        return main(arguments)
    except OSError as error:
        return _failed(str(error))


if __name__ == "__main__":
    status = _run(sys.argv[1:])
    # Told already, if it fails.
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    # libvirt's event loop has no end: Python would tear its thread down in mid-work.
    os._exit(status)
