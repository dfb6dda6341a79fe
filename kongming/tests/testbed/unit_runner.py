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

"""Takes systemctl's place where no systemd runs: it starts a unit as the unit's user.

    python -m kongming.tests.testbed.unit_runner enable --now kongming-executor

Of a unit and its drop-ins it obeys the user, the groups, the capabilities, the environment, the
state directory and the command. $KONGMING_UNITS is where logs and process ids go.
"""

from __future__ import annotations

from collections import defaultdict
import grp
import os
from pathlib import Path
import pwd
import select
import shlex
import shutil
import signal
import subprocess
import sys

SYSTEM = Path("/etc/systemd/system")
# systemd's exit statuses for these.
NO_GROUP, NO_USER = 216, 217
_END_S = 20


def main(arguments: list[str]) -> int:
    """Do what systemctl would; give its exit status."""
    folder = Path(os.environ["KONGMING_UNITS"])
    if arguments[0] == "stop-all":
        for pid in folder.glob("*.pid"):
            _end(int(pid.read_text()))
        return 0
    if arguments[0] == "restart":
        _end(int((folder / f"{arguments[-1]}.pid").read_text()))
    if arguments[0] in ("enable", "start", "restart"):
        return _start(arguments[-1], folder)
    return 0


def _settings(unit: str) -> dict[str, list[str]]:
    """Read a unit and its drop-ins: an empty value forgets those before it."""
    name = unit.removesuffix(".service") + ".service"
    files = [SYSTEM / name, *sorted((SYSTEM / f"{name}.d").glob("*.conf"))]
    found: dict[str, list[str]] = defaultdict(list)
    for line in "\n".join(path.read_text() for path in files).splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[key] = [*found[key], value] if value else []
    return found


def _start(unit: str, folder: Path) -> int:
    found = _settings(unit)
    name = found["User"][-1]
    try:
        user = pwd.getpwnam(name)
        groups = [grp.getgrnam(each).gr_gid for each in found["SupplementaryGroups"]]
        gid = grp.getgrnam(found["Group"][-1]).gr_gid if found["Group"] else user.pw_gid
    except KeyError as error:
        print(error, file=sys.stderr)
        return NO_USER if name in str(error) else NO_GROUP
    groups += os.getgrouplist(name, user.pw_gid)
    for each in found["StateDirectory"]:
        state = Path("/var/lib", each)
        state.mkdir(mode=int(found["StateDirectoryMode"][-1], 8), exist_ok=True)
        shutil.chown(state, user.pw_uid, user.pw_gid)
    capabilities = [
        f"+{each.removeprefix('CAP_').lower()}"
        for line in found["AmbientCapabilities"]
        for each in line.split()
    ]
    command = [
        *("setpriv", f"--reuid={user.pw_uid}", f"--regid={gid}", "--no-new-privs"),
        f"--groups={','.join(map(str, groups))}",
        *(f"--{which}-caps={','.join(capabilities) or '-all'}" for which in ("inh", "ambient")),
        *("--", *shlex.split(found["ExecStart"][-1])),
    ]
    env = dict(each.split("=", 1) for each in found["Environment"])
    path = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
    with (folder / f"{unit}.log").open("ab") as log:
        started = subprocess.Popen(
            command,
            env={**path, **env, "HOME": user.pw_dir},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    (folder / f"{unit}.pid").write_text(str(started.pid))
    return 0


def _end(pid: int) -> None:
    """End a process, and wait until it has: another one may take its place."""
    try:
        ending = os.pidfd_open(pid)
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    select.select([ending], [], [], _END_S)
    os.close(ending)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
