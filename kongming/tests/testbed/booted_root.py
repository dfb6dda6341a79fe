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

"""A Debian root whose first process is systemd, and a command beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
import subprocess

from kongming.tests.testbed.process import find_program, wait_until
from kongming.tests.testbed.root_init import Place

BOOT_S = 120


def run(inside: Sequence[str], environment: Mapping[str, str], place: Place, log: Path) -> int:
    """Boot a place, run its command and end it; give the command's status.

    :param inside: the command that becomes systemd in namespaces of its own
    :param log: where systemd writes
    """
    with log.open("wb") as written:
        booted = subprocess.Popen(
            inside, env=environment, stdin=subprocess.DEVNULL, stdout=written, stderr=written
        )
    try:
        return _run_beside(booted, place, log)
    finally:
        # All that runs in it ends with it.
        booted.kill()
        booted.wait()
        _remove_control_groups(str(place.init))


def _run_beside(booted: subprocess.Popen[bytes], place: Place, log: Path) -> int:
    children = Path(f"/proc/{booted.pid}/task/{booted.pid}/children")
    first = wait_until(lambda: children.read_text().split(), BOOT_S, "the first process").pop()
    enter = [
        *(find_program("nsenter", "util-linux"), "--target", first),
        *("--mount", "--pid", "--ipc", "--uts", "--cgroup", "--root"),
        # nsenter's --wd is a folder of this machine, not of the place.
        *("env", "-i", f"--chdir={place.folder}"),
        *(f"{name}={value}" for name, value in place.environment.items()),
    ]

    def is_up() -> bool:
        if booted.poll() is not None:
            raise RuntimeError(f"systemd has ended, see {log}: {log.read_text()[-500:]}")
        command = [*enter, "systemctl", "is-system-running"]
        state = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        # Degraded: a unit that a container can't have has failed.
        return state.strip() in ("running", "degraded")

    wait_until(is_up, BOOT_S, f"systemd is up; {log} has what it waits for")
    return subprocess.run([*enter, *place.command], check=False).returncode


def _remove_control_groups(name: str) -> None:
    """Remove the control groups of a systemd that has ended."""
    script = (
        "mount -t cgroup2 cgroup2 /mnt && cd /mnt && for _ in $(seq 50); do "
        f'find "{name}" -depth -type d -exec rmdir {{}} + && exit 0; sleep 0.2; done'
    )
    unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    subprocess.run(unshare, capture_output=True, check=False)
