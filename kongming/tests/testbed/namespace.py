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

"""Commands that see other files in some places than the machine does.

They run in a mount namespace (and, on request, a cgroup namespace) of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
import shlex
import subprocess

from kongming.tests.testbed.cgroup import Cgroup
from kongming.tests.testbed.process import find_program

HOST_NAME = Path("/proc/sys/kernel/hostname")
PROC = Path("/proc/self")
_CAP_SYS_ADMIN = 1 << 21


def in_namespace(
    command: Sequence[str],
    *,
    binds: Mapping[Path, Path],
    masks: Iterable[Path] = (),
    empty_file: Path | None = None,
    cgroup: Cgroup | None = None,
    host_name: str | None = None,
) -> list[str]:
    """The command line that runs a command so; the process id stays the same.

    :param binds: what stands where: place → file or folder
    :param masks: files that nobody can open; those that don't exist stay so
    :param empty_file: stands in for `masks`
    :param cgroup: becomes the root of the control groups that the command sees
    :param host_name: the machine's name, as the command sees it
    """
    outside = []
    inside = []
    options = ["--mount", "--propagation", "private"]
    if cgroup is not None:
        options.append("--cgroup")
        outside += [_join(group) for group in cgroup.groups]
        inside += [_join(leaf) for leaf in cgroup.leaves]
        inside += [_bind(group, group.parent) for group in cgroup.groups]
    if host_name is not None:
        options.append("--uts")
        inside.append(f"echo {shlex.quote(host_name)} > {HOST_NAME}")
    inside += [_bind(source, place) for place, source in binds.items()]
    if empty_file is not None:
        for mask in masks:
            if mask.exists():
                inside += [_bind(empty_file, mask), f"mount -o remount,bind,ro {_quoted(mask)}"]
    unshare = [find_program("unshare", "util-linux"), *options]
    return [*_shell(outside), *unshare, *_shell(inside), *command]


def in_namespace_of(
    process: int, command: Sequence[str], cgroup: Cgroup | None, *, host_name: bool = False
) -> list[str]:
    """The command line that runs a command where a process of `in_namespace` is.

    :param host_name: whether that one has a host name of its own
    """
    # Its root, too: where we run in a changed root, the namespace's is another.
    nsenter = [find_program("nsenter", "util-linux"), "--mount", "--root"]
    if host_name:
        nsenter.append("--uts")
    joins = []
    if cgroup is not None:
        nsenter.append("--cgroup")
        joins = [_join(home) for home in cgroup.homes]
    return [*_shell(joins), *nsenter, "--target", str(process), *command]


def refusal() -> str | None:
    """Return why `in_namespace` can't be done on this machine; None if it can."""
    trial = in_namespace(["true"], binds={Path("/dev/null"): Path("/dev/null")})
    done = subprocess.run(trial, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    status = dict(line.split(":\t", 1) for line in (PROC / "status").read_text().splitlines())
    if not int(status["CapEff"], 16) & _CAP_SYS_ADMIN:
        return "the capability CAP_SYS_ADMIN is missing"
    mounts = (PROC / "mountinfo").read_text().splitlines()
    if not any(line.split()[4] == "/" for line in mounts):
        return "the root directory is not a mount point: mount --bind it on itself before chroot"
    return done.stderr.strip().rpartition("\n")[2]


def _shell(steps: list[str]) -> list[str]:
    return ["sh", "-ec", "; ".join([*steps, 'exec "$@"']), "sh"]


def _join(group: Path) -> str:
    return f"echo $$ > {_quoted(group / 'cgroup.procs')}"


def _bind(source: Path, place: Path) -> str:
    return f"mount --bind {_quoted(source)} {_quoted(place)}"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
