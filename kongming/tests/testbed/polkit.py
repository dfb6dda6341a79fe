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

"""A polkitd on a system bus of its own, with rules and groups that a test chooses."""

from __future__ import annotations

from collections.abc import Mapping
import os
from pathlib import Path
import subprocess

from kongming.tests.testbed.namespace import in_namespace
from kongming.tests.testbed.process import Process, Service, find_program

START_TIMEOUT = 30
POLKITD = "/usr/lib/polkit-1/polkitd"
BUS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
  "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={root}/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="false"/>
    <allow receive_sender="*" eavesdrop="false"/>
  </policy>
</busconfig>
"""


class Polkit(Service):
    """A bus and a polkitd; a context manager.

    :param root: a folder that all users may enter
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o755)
        self._root = root
        self._rules = root / "rules.d"
        self._groups = root / "group"
        self._bus = Process([], root / "bus.log")
        self._polkitd = Process([], root / "polkitd.log")

    @property
    def env(self) -> Mapping[str, str]:
        """The variable by which the bus is found."""
        return {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={self._root}/bus"}

    def start(self) -> None:
        """Return when it answers. It has Debian's rule, and nobody in the group libvirt."""
        self._rules.mkdir(mode=0o755)
        self._groups.write_text(_groups_of())
        configuration = self._root / "bus.conf"
        configuration.write_text(BUS.format(root=self._root))
        self._bus.command = [
            *(find_program("dbus-daemon", "dbus-daemon"), "--config-file", str(configuration)),
            *("--nofork", "--nopidfile", "--nosyslog"),
        ]
        self._bus.start()
        self._bus.wait_ready((self._root / "bus").exists, START_TIMEOUT, "the bus is there")
        self._start_polkitd()

    def add_to_group(self, user: str) -> None:
        """Enter a user in the group libvirt of /etc/group, as polkitd sees it."""
        self._groups.write_text(_groups_of(user))
        self._restart()

    def rule(self, javascript: str) -> None:
        """Write the operator's rule, in place of the one before."""
        (self._rules / "10-test.rules").write_text(javascript)
        self._restart()

    def _restart(self) -> None:
        self._polkitd.terminate()
        self._start_polkitd()

    def _start_polkitd(self) -> None:
        binds = {Path("/etc/polkit-1/rules.d"): self._rules, Path("/etc/group"): self._groups}
        self._polkitd.command = in_namespace([POLKITD], binds=binds)
        self._polkitd.env = {**os.environ, **self.env}
        self._polkitd.start()
        self._polkitd.wait_ready(self._answers, START_TIMEOUT, "polkitd answers")

    def _answers(self) -> bool:
        command = [find_program("pkaction", "polkitd"), "--action-id", "org.libvirt.unix.manage"]
        env = {**os.environ, **self.env}
        return subprocess.run(command, env=env, capture_output=True, check=False).returncode == 0

    def _end(self) -> None:
        self._polkitd.terminate()
        self._bus.terminate()


def _groups_of(user: str = "") -> str:
    """Return the machine's groups, with a user in libvirt's, or none."""
    lines = Path("/etc/group").read_text().splitlines()
    return "".join(
        line.rpartition(":")[0] + f":{user}\n" if line.startswith("libvirt:") else f"{line}\n"
        for line in lines
    )
