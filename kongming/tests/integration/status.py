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

"""kongming-status, run as a program."""

import atexit
import functools
import json
from pathlib import Path
import sys

import kongming
from kongming.tests.testbed.abilities import abilities
from kongming.tests.testbed.preloaded import Preloaded
from kongming.tests.testbed.process import run

COMMAND = Path(sys.executable).with_name("kongming-status")
#: Runs a command where the libvirt hook is installed, and was before any libvirtd started.
_MOUNT = """
mount -t tmpfs none /etc/libvirt
mkdir -p /etc/libvirt/hooks/qemu.d
mount --bind "$0" /etc/libvirt/hooks/qemu.d
exec "$@"
"""
HOOKED = (
    *("unshare", "--mount", "sh", "-e", "-c", _MOUNT),
    str(Path(kongming.__file__).parents[1] / "etc/libvirt"),
)


@functools.cache
def _loaded():
    """The command where the hook is, loaded once."""
    modules = ("kongming.cmd.checks", "kongming.status.broker", "kongming.status.nova")
    inside = HOOKED if abilities().no_mounts is None else ()
    server = Preloaded("kongming-status", modules=modules, inside=inside)
    server.start()
    atexit.register(server._end)
    return server


def command():
    """Return the command line of kongming-status where the hook is installed."""
    return _loaded().command("kongming-status")


class Status:
    """One run of the command: its exit status, and each check's result and details."""

    def __init__(self, conf, *arguments):
        ended = run([*command(), "--config-file", conf, "upgrade", "check", *arguments, "--json"])
        self.code = ended.returncode
        self.errors = ended.stderr
        shown = json.loads(ended.stdout) if ended.stdout else {"checks": []}
        self.results = {check["check"]: check["result"] for check in shown["checks"]}
        self.details = {check["check"]: check["details"] for check in shown["checks"]}
        for secret in ("secret", "guest:guest"):
            assert secret not in ended.stdout + ended.stderr

    def only(self, name):
        """Return the details of the one check that is not a success."""
        assert [check for check, result in self.results.items() if result] == [name], self.details
        return self.details[name]
