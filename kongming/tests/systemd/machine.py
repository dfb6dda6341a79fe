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

"""The machine of these tests: its systemd, its packages, and what a page has root type."""

from __future__ import annotations

from collections.abc import Iterable
import os
from pathlib import Path
import re
import subprocess

from kongming.tests.testbed.pages import TOP
from kongming.tests.testbed.process import patience, wait_until

#: Where the packages' registries are.
_REGISTRIES = [
    (name, value)
    for name, value in os.environ.items()
    if re.match(r"PIP_|\w+_proxy$|SSL_CERT_FILE|REQUESTS_CA_BUNDLE", name, re.IGNORECASE)
]

#: What a person does at a prompt: agree, and write the file that the page shows.
PERSON = """
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
apt-get() { command apt-get -y -q --no-install-recommends "$@"; }
editor() { printf %s "$WRITTEN" > "$1"; }
systemctl() { [ "$1" = edit ] || command systemctl "$@"; }
journalctl() { command journalctl --no-pager "$@"; }
"""


def sh(*lines: str, written: str = "", fails: bool = False) -> str:
    """Run lines of a shell as root, in the source tree; return what they print.

    :param written: what the person writes into a file that is edited
    """
    script = "\n".join(["set -eu", PERSON, *lines])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=TOP,
        # As a login of root has them.
        env={
            **dict(_REGISTRIES),
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "WRITTEN": written,
        },
        capture_output=True,
        text=True,
        timeout=900 * patience(),
        check=False,
    )
    output = f"{done.stdout}{done.stderr}"
    assert (done.returncode != 0) == fails, f"{script}\n{output}"
    return output


class Unit:
    """A unit of systemd."""

    def __init__(self, name: str) -> None:
        self.name = name

    def show(self, name: str) -> str:
        """Return a property."""
        return sh(f"systemctl show --value -p {name} {self.name}").strip()

    @property
    def pid(self) -> int:
        """The main process."""
        return int(self.show("MainPID"))

    def log(self) -> str:
        """Return what it has written into the journal."""
        return sh(f"journalctl -b -u {self.name} -o cat")

    def wait_log(self, text: str, times: int = 1, timeout: float = 60) -> None:
        """Wait until the journal has a text so many times."""
        what = f"{text!r} in the journal of {self.name}"
        wait_until(lambda: self.log().count(text) >= times, timeout, what)

    def wait_state(self, state: str, timeout: float = 60) -> None:
        """Wait until it is active, activating, ..."""
        wait_until(lambda: self.show("ActiveState") == state, timeout, f"{self.name} is {state}")

    def process_status(self) -> dict[str, str]:
        """Return the kernel's view of the main process."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def exposure(self) -> float:
        """Return systemd's figure of how exposed it is; 10 is worst."""
        output = sh(f"systemd-analyze --no-pager security {self.name}.service | tail -n 1")
        found = re.search(r": ([0-9.]+) ", output)
        assert found, output
        return float(found[1])

    def drop_in(self, text: str) -> None:
        """Change the unit, as ``systemctl edit`` does."""
        folder = Path(f"/etc/systemd/system/{self.name}.service.d")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test.conf").write_text(text)
        sh("systemctl daemon-reload")


def capabilities(names: Iterable[str]) -> int:
    """Return a set of capabilities as the kernel shows it."""
    numbers = {"CAP_SYS_PTRACE": 19, "CAP_SYS_NICE": 23}
    return sum(1 << numbers[name] for name in names)
