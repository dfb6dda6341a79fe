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

A mount namespace: what keeps other users from the interpreter and from this source tree, as
root's home does, is made passable there, and folders such as /etc/systemd/system are replaced.
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

TOP = Path(__file__).resolve().parents[3]


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
    steps = [*passable(_quoted(root / "python")), *steps]
    script = "\n".join(["set -e", *steps, f"exec {shlex.join(command)}"])
    unshare = [find_program("unshare", "util-linux"), "--mount", "--propagation", "private"]
    return run([*unshare, "bash", "-c", script], 180)


def passable(kept: str) -> list[str]:
    """Return the steps that let all users to Python and to this source tree.

    :param kept: a folder that is made for it, as the shell reads it.
    """
    places = [place for place in (Path(sys.base_prefix), Path(sys.prefix), TOP) if _closed(place)]
    outer = [place for place in places if not any(each in place.parents for each in places)]
    steps = [
        f"mkdir -p {kept}/{number}; mount --bind {_quoted(place)} {kept}/{number}"
        for number, place in enumerate(outer)
    ]
    steps += [
        f"mount -t tmpfs -o mode=0755 none {_quoted(folder)}"
        for folder in {_closed(place)[-1]: None for place in outer}
    ]
    return steps + [
        f"mkdir -p {_quoted(place)}; mount --move {kept}/{number} {_quoted(place)}"
        for number, place in enumerate(outer)
    ]


def _closed(place: Path) -> list[Path]:
    """Return the folders on the way to a place that others can't pass, the innermost first."""
    return [each for each in place.parents if not each.stat().st_mode & stat.S_IXOTH]


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
