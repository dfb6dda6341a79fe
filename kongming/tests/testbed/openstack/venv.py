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

"""The Python environment that OpenStack runs in: large, and apart from ours.

It is kept from run to run. `python -m kongming.tests.testbed.openstack.venv` makes it.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
import subprocess
import sys

VARIABLE = "KONGMING_NOVA_VENV"
HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
CONSTRAINTS = HERE / "constraints.txt"
LOG_TAIL = 2000


def location() -> Path:
    """Where it is, or will be."""
    return Path(os.environ.get(VARIABLE) or Path.home() / ".cache/kongming/nova-venv")


def is_installed() -> bool:
    """Whether it has just what is pinned."""
    stamp = _stamp()
    return stamp.exists() and stamp.read_text() == _required() and _runs()


def install() -> None:
    """Make it, or bring it up to date.

    :raises RuntimeError: pip failed; the message has the end of its output
    """
    if is_installed():
        return
    folder = location()
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not _runs():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    # Until all is in place it is nothing to rely on.
    _stamp().unlink(missing_ok=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    pip += ["-c", str(CONSTRAINTS), "-r", str(REQUIREMENTS)]
    # It warns of much that is none of a reader's business, unless it fails.
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip install failed:\n{done.stderr[-LOG_TAIL:]}")
    _stamp().write_text(_required())


def installed() -> Path:
    """Where it is.

    :raises FileNotFoundError: it is not there, or not what is pinned
    """
    if not is_installed():
        command = f"python -m {__spec__.name}"
        raise FileNotFoundError(f"{location()} is not up to date: run '{command}' first")
    return location()


def _stamp() -> Path:
    return location() / ".kongming-setup"


def _required() -> str:
    return hashlib.sha256(REQUIREMENTS.read_bytes() + CONSTRAINTS.read_bytes()).hexdigest()


def _runs() -> bool:
    python = location() / "bin/python"
    # The interpreter that it was made from may have been removed since.
    return (
        python.exists()
        and not subprocess.run(
            [str(python), "-m", "pip", "-V"], capture_output=True, check=False
        ).returncode
    )


if __name__ == "__main__":
    install()
