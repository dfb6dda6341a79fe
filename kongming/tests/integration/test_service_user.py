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

"""Programs run by real users: who kongming-status judges as, and who must be another one."""

import grp
import json
from pathlib import Path
import pwd
import shutil
import sys
import tempfile

import pytest

from kongming.tests.testbed.program import BIN
from kongming.tests.testbed.unprivileged import on_machine
from kongming.tests.thorough import stories

pytestmark = pytest.mark.needs_mounts

USER, OTHER = "nobody", "daemon"
SYSTEMD = Path("/etc/systemd/system")
UNIT = """[Service]
ExecStart={program} --config-file {conf}
User=nobody
AmbientCapabilities=CAP_SYS_NICE CAP_SYS_PTRACE
"""
CONF = """[DEFAULT]
host = c1
state_path = {folder}/state
[libvirt]
connection_uri = test:///default
[oslo_messaging_notifications]
transport_url = rabbit://u:p@127.0.0.1:1/
"""


class Machine:
    """A machine with the unit of a service, whose user is nobody."""

    def __init__(self, folder):
        self.folder = folder
        self.units, self.conf = folder / "units", folder / "etc/kongming.conf"
        self.state = folder / "state"
        for made in (self.units, self.conf.parent, self.state, folder / "python"):
            made.mkdir()
        self.conf.write_text(CONF.format(folder=folder))
        self.conf.chmod(0o640)
        shutil.chown(self.conf, "root", self.group)
        shutil.chown(self.state, USER, self.group)
        self.state.chmod(0o750)
        self.write_unit(BIN / "kongming-executor")

    @property
    def group(self):
        return grp.getgrgid(pwd.getpwnam(USER).pw_gid).gr_name

    def write_unit(self, program):
        unit = UNIT.format(program=program, conf=self.conf)
        (self.units / "kongming-executor.service").write_text(unit)

    def run(self, program, *arguments, user=None):
        command = [str(BIN / program), f"--config-file={self.conf}", *arguments]
        return on_machine(self.folder, command, binds={SYSTEMD: self.units}, user=user)

    def status(self, *arguments, user=None):
        done = self.run("kongming-status", "upgrade", "check", "--json", *arguments, user=user)
        assert done.stderr == ""
        found = {each["check"]: each for each in json.loads(done.stdout)["checks"]}
        return done.returncode, found


@pytest.fixture
def machine():
    # A folder that all users can enter, unlike those of pytest.
    with tempfile.TemporaryDirectory(prefix="kongming-") as folder:
        Path(folder).chmod(0o755)
        yield Machine(Path(folder))


def test_root_checks_as_the_user_of_the_unit(machine):
    _, checks = machine.status()
    assert checks["Service's user"] == {
        "check": "Service's user",
        "result": 0,
        "details": "checked as user nobody (kongming-executor.service)",
    }
    assert "is writable by user nobody" in checks["State path"]["details"]


def test_the_state_path_is_judged_with_the_rights_of_that_user(machine):
    shutil.chown(machine.state, "root", "root")
    status, checks = machine.status()
    assert (status, checks["State path"]["result"]) == (2, 2)
    assert "is not writable by user nobody" in checks["State path"]["details"]


def test_a_configuration_for_root_only_is_reported(machine):
    machine.conf.chmod(0o600)
    done = machine.run("kongming-status", "upgrade", "check")
    assert (done.returncode, done.stdout) == (255, "")
    assert done.stderr.startswith(
        f"kongming-status: {machine.conf} can't be read by user nobody: Permission denied; "
    )


def test_a_program_that_the_user_of_the_unit_can_not_run_is_reported(machine):
    program = machine.folder / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    machine.write_unit(program)
    status, checks = machine.status()
    assert (status, [*checks]) == (2, ["Service's user"])
    details = checks["Service's user"]["details"]
    assert details.startswith(
        f"kongming-executor.service has user nobody, who can't run {program}: "
    )
    assert "Permission denied; if it was installed with a umask" in details


def test_an_unknown_user_is_reported(machine):
    status, checks = machine.status("--user", "absent")
    assert (status, [*checks]) == (2, ["Service's user"])
    assert "has user absent, who does not exist" in checks["Service's user"]["details"]


def test_another_user_learns_whose_permissions_are_unknown(machine):
    machine.conf.chmod(0o644)
    status, checks = machine.status(user=OTHER)
    assert status >= 1
    assert checks["Service's user"]["details"].startswith(
        "checked as user daemon, but kongming-executor.service has user nobody, "
    )
    assert checks["Service's user"]["result"] == 1


def test_the_user_itself_needs_no_root(machine):
    _, checks = machine.status(user=USER)
    assert "checked as user nobody (kongming-ex" in checks["Service's user"]["details"]


def test_root_may_check_as_any_user(machine):
    machine.conf.chmod(0o644)
    _, checks = machine.status("--user", OTHER)
    assert checks["Service's user"]["details"] == "checked as user daemon (--user)"
    assert "not writable by user daemon" in checks["State path"]["details"]


def test_the_checks_have_the_capabilities_of_the_unit(machine):
    code = (
        "import os; from pathlib import Path; from kongming.status import service_user\n"
        "if os.geteuid() == 0: service_user.find(None, Path('/absent')).become()\n"
        "print(os.geteuid(), os.environ['HOME'], open('/proc/self/status').read())"
    )
    done = on_machine(machine.folder, [sys.executable, "-c", code], binds={SYSTEMD: machine.units})
    user = pwd.getpwnam(USER)
    assert done.stdout.startswith(f"{user.pw_uid} {user.pw_dir} ")
    assert "CapEff:\t0000000000880000" in done.stdout


COMMANDS = [
    ("kongming-executor",),
    ("kongming-manage", "allocation", "list"),
    ("kongming-manage", "allocation", "show", "5f0c3b52-6a0e-4c6e-9a5f-0d6a4f0b8c11"),
    ("kongming-manage", "reconcile"),
    ("kongming-manage", "db", "version"),
    ("kongming-manage", "db", "sync"),
    ("kongming-notification-handler",),
    ("kongming-conductor",),
]


@stories("command", COMMANDS, ids=" ".join)
def test_another_user_learns_the_right_user_in_one_line(machine, command):
    with_state(machine)
    done = machine.run(*command, user=OTHER)
    (line,) = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 2
    assert "can't be read by user daemon: Permission denied" in line
    assert f"run this command as a user of that group, as in 'sudo -u {machine.group} ...'" in line


@stories("command", COMMANDS, ids=" ".join)
def test_another_user_who_can_read_the_configuration_is_warned_too(machine, command):
    with_state(machine)
    machine.conf.chmod(0o644)
    done = machine.run(*command, user=OTHER)
    lines = (done.stdout + done.stderr).splitlines()
    warnings = [line for line in lines if "sudo -u nobody" in line]
    assert done.returncode == 1, lines
    assert len(warnings) == 1, lines
    assert "belongs to user nobody" in warnings[0]
    assert "Traceback" not in done.stderr
    assert "Errno" not in done.stderr


def with_state(machine):
    """Have the service's user make its files."""
    for command in (("kongming-manage", "db", "sync"),):
        done = machine.run(*command, user=USER)
        assert done.returncode == 0, done.stderr
    code = (
        "from kongming.executor.store.store import Store; from pathlib import Path; import sys\n"
        "Store(Path(sys.argv[1])).close()"
    )
    command = [sys.executable, "-c", code, str(machine.state)]
    done = on_machine(machine.folder, command, binds={}, user=USER)
    assert done.returncode == 0, done.stderr
