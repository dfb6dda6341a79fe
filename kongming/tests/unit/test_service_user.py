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

"""As whom kongming-status judges: the user of the installed unit, or who else is named."""

import errno
import os
from pathlib import Path
import pwd
import subprocess
import sys
from types import SimpleNamespace

from oslo_upgradecheck.upgradecheck import Code
import pytest

from kongming import exception
from kongming.configuration import files
from kongming.status import service_user, unit
from kongming.status.service_user import ServiceUser
from kongming.status.unit import Unit, installed

TREE = Path(__file__).parents[3]
NOBODY = pwd.getpwnam("nobody")
ME = pwd.getpwuid(os.geteuid())
HANDLER, EXECUTOR = "kongming-notification-handler", "kongming-executor"


@pytest.fixture
def put(tmp_path):
    def put(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return put


@pytest.mark.parametrize(
    ("service", "groups", "capabilities", "program"),
    [
        (HANDLER, ("libvirt",), ("CAP_SYS_NICE", "CAP_SYS_PTRACE"), f"/usr/bin/{HANDLER}"),
        (EXECUTOR, ("libvirt",), ("CAP_SYS_NICE", "CAP_SYS_PTRACE"), f"/usr/bin/{EXECUTOR}"),
        ("kongming-conductor", (), (), "/usr/bin/kongming-conductor"),
        ("kongming-api", (), (), "/opt/kongming/bin/gunicorn"),
    ],
)
def test_the_units_of_this_tree_are_read(tmp_path, put, service, groups, capabilities, program):
    written = (TREE / f"etc/systemd/{service}.service").read_text()
    put(f"etc/systemd/system/{service}.service", written)
    expected = Unit(f"{service}.service", "kongming", groups, capabilities, program)
    assert installed(tmp_path) == expected


def test_the_unit_may_be_missing(tmp_path, put):
    put("etc/systemd/system/nova-compute.service", "[Service]\nUser=nova\n")
    assert installed(tmp_path) is None


def test_a_drop_in_overrides_the_unit(tmp_path, put):
    put(
        f"usr/lib/systemd/system/{EXECUTOR}.service",
        "[Unit]\nUser=x\n[Service]\nUser=a\nSupplementaryGroups=b\nExecStart=/a --b\n"
        "[Install]\nSupplementaryGroups=x\nExecStart=/x\n",
    )
    put(f"etc/systemd/system/{EXECUTOR}.service.d/2.conf", "[Service]\n# User=x\nUser=c\n")
    put(f"usr/lib/systemd/system/{EXECUTOR}.service.d/1.conf", "[Service]\nUser=d\n")
    put(
        f"run/systemd/system/{EXECUTOR}.service.d/3.conf",
        "[Service]\nSupplementaryGroups=e \\\n f\nExecStart=\nExecStart=-+/g\n",
    )
    assert installed(tmp_path) == Unit(f"{EXECUTOR}.service", "c", ("b", "e", "f"), (), "/g")
    put(f"etc/systemd/system/{EXECUTOR}.service.d/3.conf", "[Service]\nSupplementaryGroups=\n")
    assert installed(tmp_path) == Unit(f"{EXECUTOR}.service", "c", (), (), "/a")


def test_the_administrators_unit_counts_before_that_of_a_package(tmp_path, put):
    put(f"lib/systemd/system/{EXECUTOR}.service", "[Service]\nUser=a\n")
    put(f"etc/systemd/system/{EXECUTOR}.service", "[Service]\nExecStart=/b\n")
    assert installed(tmp_path) == Unit(f"{EXECUTOR}.service", "root", (), (), "/b")


def test_the_enabled_one_of_several_units_counts(tmp_path, put):
    for name in (HANDLER, EXECUTOR):
        put(f"etc/systemd/system/{name}.service", "[Service]\nUser=a\n")
    assert installed(tmp_path).name == f"{HANDLER}.service"
    put(f"etc/systemd/system/multi-user.target.wants/{EXECUTOR}.service", "")
    assert installed(tmp_path).name == f"{EXECUTOR}.service"


def test_an_unreadable_unit_names_no_user(tmp_path, put, monkeypatch):
    put(f"etc/systemd/system/{EXECUTOR}.service", "[Service]\nUser=a\n")

    def refused(*_arguments, **_options):
        raise PermissionError

    monkeypatch.setattr(unit.Path, "read_text", refused)
    assert installed(tmp_path).user == "root"


def test_the_option_of_the_operator_wins(tmp_path, put):
    put(f"etc/systemd/system/{EXECUTOR}.service", "[Service]\nUser=root\n")
    found = service_user.find("nobody", tmp_path, tmp_path)
    assert (found.account.pw_name, found.named_by) == ("nobody", "--user")
    assert service_user.find(str(NOBODY.pw_uid), tmp_path, tmp_path) == found
    found = service_user.find(None, tmp_path, tmp_path)
    assert (found.account.pw_name, found.named_by) == ("root", f"{EXECUTOR}.service")


@pytest.mark.parametrize(
    ("owner", "found"), [(0, None), (NOBODY.pw_uid, "nobody"), (4_000_000_001, None)]
)
def test_without_a_unit_the_user_is_the_owner_of_the_state_path(
    tmp_path, monkeypatch, owner, found
):
    monkeypatch.setattr(Path, "stat", lambda _path, **_: SimpleNamespace(st_uid=owner, st_mode=0))
    who = service_user.find(None, Path("/state"), tmp_path)
    assert (who and who.account.pw_name) == found
    assert who is None or who.named_by == "the owner of /state"


def test_without_a_unit_and_a_state_path_no_user_is_named(tmp_path):
    assert service_user.find(None, tmp_path / "absent", tmp_path) is None


@pytest.mark.parametrize("name", ["absent", "4000000001", "9" * 30])
def test_an_unknown_user_is_reported(tmp_path, put, name):
    with pytest.raises(exception.ConfigInvalid, match="--user has user .*, who does not exist"):
        service_user.find(name, tmp_path, tmp_path)
    put(f"etc/systemd/system/{EXECUTOR}.service", f"[Service]\nUser={name}\n")
    with pytest.raises(exception.ConfigInvalid, match=f"{EXECUTOR}.service has user {name}"):
        service_user.find(None, tmp_path, tmp_path)


@pytest.mark.parametrize(("name", "named_by"), [("nobody", "--user"), (None, "the owner of ")])
def test_the_configuration_names_the_state_path(tmp_path, monkeypatch, name, named_by):
    monkeypatch.setattr(service_user, "ROOT", tmp_path)
    conf = tmp_path / "kongming.conf"
    conf.write_text(f"[DEFAULT]\nstate_path = /elsewhere\nstate_path = {tmp_path}\n")
    stat, theirs = Path.stat, SimpleNamespace(st_uid=NOBODY.pw_uid, st_mode=0)
    monkeypatch.setattr(Path, "stat", lambda path, **_: theirs if path == tmp_path else stat(path))
    found = service_user.of(name, files.read([str(conf)]))
    assert found.named_by.startswith(named_by)
    assert found.account == NOBODY


def judged(tmp_path, monkeypatch, name):
    monkeypatch.setattr(service_user, "ROOT", tmp_path)
    conf = SimpleNamespace(user=name, state_path=str(tmp_path / "absent"))
    (result,) = service_user.check(conf)
    return result.code, result.details


def test_the_status_names_the_user_that_it_checks_for(tmp_path, monkeypatch):
    code, details = judged(tmp_path, monkeypatch, None)
    assert (code, details.startswith(f"checked as user {ME.pw_name}: ")) == (Code.SUCCESS, True)
    code, details = judged(tmp_path, monkeypatch, ME.pw_name)
    assert (code, details) == (Code.SUCCESS, f"checked as user {ME.pw_name} (--user)")
    other = "nobody" if ME.pw_uid == 0 else "root"
    code, details = judged(tmp_path, monkeypatch, other)
    assert code == Code.WARNING
    assert details.startswith(f"checked as user {ME.pw_name}, but --user has user {other}, ")
    assert f"'sudo -u {other} kongming-status upgrade check'" in details


class Ran:
    """Stands in for `subprocess.run`: the real one needs another user that can run Python."""

    def __init__(self, *outcomes):
        self.outcomes, self.commands = list(outcomes), []

    def __call__(self, command, **options):
        self.commands.append((command, options["user"], options["extra_groups"]))
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return SimpleNamespace(returncode=outcome)


@pytest.mark.parametrize(
    ("outcomes", "why"),
    [
        ([0, 0], ""),
        ([PermissionError(13, "Permission denied")], f"can't run {sys.executable}: Permission"),
        ([1], f"can't run {sys.executable}: it exits with 1; "),
        ([0, PermissionError(13, "Permission denied")], "can't run /usr/bin/x: Permission denied"),
        ([0, 203], "can't run /usr/bin/x: it exits with 203"),
        ([0, subprocess.TimeoutExpired("x", 60)], "can't run /usr/bin/x: it does not exit within"),
    ],
)
def test_the_user_of_the_unit_must_be_able_to_run_the_started_program(monkeypatch, outcomes, why):
    monkeypatch.setattr(subprocess, "run", ran := Ran(*outcomes))
    who = ServiceUser(NOBODY, "x.service", Unit("x.service", "nobody", (), (), "/usr/bin/x"))
    problem = who.problem()
    assert why in problem
    assert bool(problem) is bool(why)
    assert {user for _, user, _ in ran.commands} == {NOBODY.pw_uid}
    assert not problem or problem.endswith(f"'chmod -R go+rX {sys.prefix}'")


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL])
def test_a_root_that_may_not_become_another_user_reports_it(monkeypatch, number):
    monkeypatch.setattr(subprocess, "run", Ran(OSError(number, os.strerror(number))))
    with pytest.raises(exception.ConfigInvalid, match="root may not become that user here"):
        ServiceUser(NOBODY, "--user").problem()


def test_an_unknown_group_is_reported():
    who = ServiceUser(NOBODY, "x.service", Unit("x.service", "nobody", ("absent",), (), "/x"))
    with pytest.raises(exception.ConfigInvalid, match="SupplementaryGroups=absent"):
        who.problem()


@pytest.mark.parametrize(
    ("mask", "handed"),
    [("0000000000880000", ["sys_nice", "sys_ptrace"]), ("80000", ["sys_ptrace"]), ("0", [])],
)
def test_only_capabilities_that_this_process_has_are_handed_on(
    tmp_path, monkeypatch, mask, handed
):
    status = tmp_path / "status"
    status.write_text(f"Name:\tpython\nCapPrm:\t{mask}\n")
    monkeypatch.setattr(service_user, "_CAPABILITIES", status)
    of_unit = ("CAP_SYS_NICE", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN")
    assert ServiceUser(NOBODY, "x", Unit("x", "nobody", (), of_unit, ""))._capabilities() == handed
    assert ServiceUser(NOBODY, "x")._capabilities() == []
