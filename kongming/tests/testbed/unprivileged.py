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

"""A machine on which an unprivileged user can run this Python, with units of its own.

A mount namespace: what keeps other users from the interpreter's home is made passable there, and
folders such as /etc/systemd/system are replaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
import pwd
import shlex
import stat
import subprocess
import sys

from kongming.tests.testbed.process import find_program, run


def on_machine(
    root: Path,
    command: Sequence[str],
    *,
    binds: Mapping[Path, Path],
    user: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command there; root may become any user by itself.

    :param root: an empty folder.
    :param binds: what stands where: place → file or folder.
    :param user: who runs it; None is root.
    """
    steps = [f"mount --bind {_quoted(source)} {_quoted(place)}" for place, source in binds.items()]
    if user is not None:
        group = pwd.getpwnam(user).pw_gid
        setpriv = [find_program("setpriv", "util-linux"), f"--reuid={user}", f"--regid={group}"]
        command = [*setpriv, "--init-groups", "--", *command]
    script = "\n".join(["set -e", *_passable(root), *steps, f"exec {shlex.join(command)}"])
    unshare = [find_program("unshare", "util-linux"), "--mount", "--propagation", "private"]
    return run([*unshare, "bash", "-c", script], 180)


def _passable(root: Path) -> list[str]:
    """Return the steps that let all users to the interpreter."""
    home = Path(sys.base_prefix)
    closed = [each for each in home.parents if not each.stat().st_mode & stat.S_IXOTH]
    if not closed:
        return []
    kept, outermost = root / "python", closed[-1]
    return [
        f"mkdir -p {_quoted(kept)}",
        f"mount --bind {_quoted(home)} {_quoted(kept)}",
        f"mount -t tmpfs -o mode=0755 none {_quoted(outermost)}",
        f"mkdir -p {_quoted(home)}",
        f"mount --move {_quoted(kept)} {_quoted(home)}",
    ]


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
