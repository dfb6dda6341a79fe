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


"""Files of the kernel that are denied, missing or odd to this process, in its mount namespace.

The main program goes through a story with a guest once for each file and fault, with an executor
of its own each time, and prints what came of it. It needs a mount namespace that is its own, and
must not be allowed to read what it may not (CAP_DAC_OVERRIDE).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
import ctypes
import json
import logging
import os
from pathlib import Path
import shutil
import sys
import tempfile
import time
from typing import Any

from kongming.allocation import metadata
from kongming.allocation.request import Request, Source
from kongming.executor.executor import Executor
from kongming.executor.settings import Settings
from kongming.host.rules import Overlap, Rules
from kongming.hypervisor.connection import run_event_loop
from kongming.runtime.heartbeats import Heartbeats
from kongming.tests.testbed.process import find_program, wait_until

DENIED, ABSENT, ODD = FAULTS = ("denied", "absent", "odd")
GARBAGE = b"\xff\xfe no kernel\n-1,,9999999999999999999-\x00"
#: That of what is requested which is the same on any host with a guest's threads.
PINNED = ("vcpu-pinning", "emulator-pinning", "iothread-pinning")
RULES = Rules(overlap=Overlap.WARN, smt=Overlap.WARN)
_BIND, _REC, _PRIVATE, _DETACH = 4096, 16384, 1 << 18, 2
_TIMEOUT_S = 30.0

_libc = ctypes.CDLL(None, use_errno=True)


def command(job: dict[str, Any], trace: Path | None = None) -> list[str]:
    """Return the command line that runs this program.

    :param job: its ``uri``, the ``guest``'s UUID, ``keys`` of the metadata, ``cases``: path and
        fault each; without any it goes through the story once.
    :param trace: gets each file that it opens, once the story has begun.
    """
    kept = "-dac_override,-dac_read_search"
    tracing = (
        []
        if trace is None
        else [
            find_program("strace", "strace"),
            "-f",
            "-qq",
            "-e",
            "trace=openat",
            "-o",
            str(trace),
        ]
    )
    return [
        *(find_program("unshare", "util-linux"), "--mount", "--propagation", "private"),
        *(find_program("setpriv", "util-linux"), "--bounding-set", kept, "--inh-caps", kept, "--"),
        *(*tracing, sys.executable, "-m", __name__, json.dumps(job)),
    ]


@contextmanager
def fault(path: Path, kind: str, listed: Iterable[Path]) -> Iterator[None]:
    """Have a file or folder denied, missing or odd, while the block runs.

    :param listed: what else is to be there where it is missing.
    """
    with ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="kongming-")))
        if kind == ABSENT:
            _without(path, listed, folder, undo)
        else:
            stand_in = folder / "it"
            if path.is_dir():
                stand_in.mkdir()
            else:
                stand_in.write_bytes(b"" if kind == DENIED else GARBAGE)
            if kind == DENIED:
                stand_in.chmod(0)
                undo.callback(stand_in.chmod, 0o700)
            _mount(stand_in, path, undo)
        yield


def _without(path: Path, listed: Iterable[Path], folder: Path, undo: ExitStack) -> None:
    """Mount a folder that holds all that is listed but one over its parent."""
    parent = path.parent
    names = {each.relative_to(parent).parts[0] for each in listed if parent in each.parents}
    for name in sorted(names - {path.name} | ({"self"} if parent == Path("/proc") else set())):
        there, copy = parent / name, folder / name
        if there.is_symlink():
            copy.symlink_to(there.readlink())
        elif there.is_dir():
            copy.mkdir()
            _mount(there, copy, undo)
        elif there.exists():
            copy.touch()
            _mount(there, copy, undo)
    if parent == Path("/proc"):
        own = folder / str(os.getpid())
        own.mkdir(exist_ok=True)
        _mount(parent / str(os.getpid()), own, undo)
    _mount(folder, parent, undo)


def _mount(source: Path, place: Path, undo: ExitStack) -> None:
    _call(_libc.mount(os.fsencode(source), os.fsencode(place), None, _BIND | _REC, None), place)
    _call(_libc.mount(None, os.fsencode(place), None, _REC | _PRIVATE, None), place)
    undo.callback(lambda: _call(_libc.umount2(os.fsencode(place), _DETACH), place))


def _call(answer: int, place: Path) -> None:
    if answer:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(place))


class _Lines(logging.Handler):
    """Keeps what is logged, with the errors that go with it."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        self.kept: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(self.format(record))


def story(uri: str, guest: str, keys: dict[str, str]) -> dict[str, Any]:
    """Place a guest, look at the host, release the guest; return what came of it."""
    lines = _Lines()
    logger = logging.getLogger("kongming")
    logger.setLevel(logging.INFO)
    logger.addHandler(lines)
    state = Path(tempfile.mkdtemp(prefix="kongming-"))
    executor = Executor(
        host="compute-1",
        state_path=state,
        connection_uri=uri,
        keepalive=(5, 3),
        workers=1,
        settings=Settings(RULES, retry_max_s=1.0, check_interval_s=0.0),
        heartbeats=Heartbeats(),
        on_connect=lambda: None,
    )
    executor.start()
    found: dict[str, Any] = {"log": lines.kept}
    try:
        wait_until(lambda: executor.connected, _TIMEOUT_S, "libvirt answers")
        requested = metadata.parse({f"{metadata.PREFIX}{key}": text for key, text in keys.items()})
        executor.request(guest, Request(Source.OPERATOR, requested, "a test", time.time()))
        wait_until(lambda: _settled(executor), _TIMEOUT_S, "the guest is placed, or refused")
        (record,) = executor.records()
        found |= {
            "status": record.status,
            "reason": record.reason,
            "message": record.message,
            "unobserved": record.unobserved,
            "affinity": _affinity(uri, guest),
            "cpus": len(executor.snapshot()["cells"][0]["cpus"]),
        }
        executor.withdraw(guest, Source.OPERATOR, "a test")
        wait_until(lambda: not executor.instances, _TIMEOUT_S, "the guest is released")
        found["released"] = True
    except Exception as error:  # noqa: BLE001
        found["error"] = repr(error)
    finally:
        executor.stop(_TIMEOUT_S)
        logger.removeHandler(lines)
        shutil.rmtree(state)
    return found


def _settled(executor: Executor) -> bool:
    return all(record.status != "pending" for record in executor.records())


def _affinity(uri: str, guest: str) -> list[list[int]]:
    """Return where the vCPUs may run, by the kernel's word, without a file of it."""
    import libvirt

    connection = libvirt.openReadOnly(uri)
    try:
        _info, maps = connection.lookupByUUIDString(guest).vcpus()
        return [[cpu for cpu, there in enumerate(each) if there] for each in maps]
    finally:
        connection.close()


def main(argv: Sequence[str]) -> None:
    """Go through the cases, and print a line of JSON for each."""
    job = json.loads(argv[1])
    run_event_loop()
    of = (job["uri"], job["guest"], job["keys"])
    if not job["cases"]:
        print(json.dumps(story(*of)), flush=True)
    listed = {Path(path) for path, _kind in job["cases"]}
    for path, kind in job["cases"]:
        with fault(Path(path), kind, listed):
            found = story(*of)
        print(json.dumps({"path": path, "fault": kind, **found}), flush=True)


if __name__ == "__main__":
    main(sys.argv)
