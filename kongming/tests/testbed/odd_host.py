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


"""Hosts on which a service sees other files than there are, and may do less: by namespaces.

The machine stays as it is, and so does what libvirtd and QEMU see of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
import pwd
import shlex

from kongming.tests.testbed.process import find_program
from kongming.tests.testbed.unprivileged import passable

#: Whom a service runs as that is not root: libvirtd must know it. It has no other process, unlike
#: nobody, whose guests of other tests it could see where processes are hidden.
SERVICE_USER = pwd.getpwnam("backup").pw_uid
SYSTEM = Path("/sys/devices/system")
#: What the units give a service, and what an unprivileged one has of itself.
UNIT = ("sys_nice", "sys_ptrace")


@dataclass(frozen=True)
class OddHost:
    """How a service finds its host.

    :ivar steps: shell commands that change its mounts; ``$D`` is a folder of its own.
    :ivar own_pids: whether it has a PID namespace of its own.
    :ivar own_proc: whether it has a ``/proc`` of that namespace then; else it is the machine's.
    :ivar capabilities: those that it has as an ordinary user; None: it is root.
    """

    steps: Sequence[str] = ()
    own_pids: bool = False
    own_proc: bool = True
    capabilities: Sequence[str] | None = None

    def command(self, command: Sequence[str], folder: Path) -> list[str]:
        """Return the command line that runs a command on such a host.

        :param folder: is made, and holds what is mounted over files.
        """
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--mount", "--propagation", "private"]
        if self.own_pids:
            options += ["--pid", "--fork", "--kill-child"]
            options += ["--mount-proc"] if self.own_proc else []
        reaches = [] if self.capabilities is None else passable("$D/python")
        steps = [f"D={shlex.quote(str(folder))}", *reaches, *self.steps, 'exec "$@"']
        return [
            find_program("unshare", "util-linux"),
            *options,
            *("sh", "-ec", "; ".join(steps), "sh"),
            *self._as_user(),
            *command,
        ]

    def _as_user(self) -> list[str]:
        if self.capabilities is None:
            return []
        kept = ",".join(["-all", *(f"+{name}" for name in self.capabilities)])
        return [
            find_program("setpriv", "util-linux"),
            *(f"--reuid={SERVICE_USER}", f"--regid={SERVICE_USER}", "--clear-groups"),
            *(f"--bounding-set={kept}", f"--inh-caps={kept}", f"--ambient-caps={kept}", "--"),
        ]


def over(path: object, content: str) -> str:
    """Return the step that mounts a file with some text over another one."""
    place, name = shlex.quote(str(path)), _name(path)
    return f"printf %s {shlex.quote(content)} > $D/{name}; mount --bind $D/{name} {place}"


def denied(path: object) -> str:
    """Return the step after which an ordinary user can't open a file, or list a folder."""
    quoted = shlex.quote(str(path))
    name = _name(path)
    return (
        f"if [ -d {quoted} ]; then mkdir -p $D/{name}; else : > $D/{name}; fi; "
        f"chmod 0 $D/{name}; mount --bind $D/{name} {quoted}"
    )


def empty(folder: object, *names: str) -> str:
    """Return the step that leaves nothing of a folder but copies of some of its files."""
    quoted, kept = shlex.quote(str(folder)), f"$D/{_name(folder)}"
    copies = [
        f"mkdir -p {kept}/{Path(name).parent} && cat {quoted}/{name} > {kept}/{name}"
        for name in names
    ]
    return "; ".join([f"mkdir -p {kept}", *copies, f"mount --bind {kept} {quoted}"])


def _name(path: object) -> str:
    return str(path).strip("/").replace("/", "_")
