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

"""The user of the checks: only the service's own user can find out what the service may do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
import errno
import grp
import os
from pathlib import Path
import pwd
import shutil
import subprocess
import sys

from oslo_config import cfg
from oslo_upgradecheck.upgradecheck import Result

from kongming import exception
from kongming.configuration import files
from kongming.configuration.files import Setting
from kongming.runtime.users import user
from kongming.status.finding import doubtful, good
from kongming.status.unit import SERVICES, Unit, installed

OPTION = cfg.StrOpt(
    "user",
    help="Check as this user (default: the user of the installed unit, or else the owner of "
    "state_path). Only root can check as another user.",
)
ROOT = Path("/")
_TIMEOUT_S = 60.0
_STATE_PATH = (files.DEFAULT, "state_path")
_DEFAULT_PATH = "/var/lib/kongming"
_CAPABILITIES = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class ServiceUser:
    """The user that the service runs as.

    :ivar named_by: the source of its name.
    :ivar unit: None if there is none, or another user is requested.
    """

    account: pwd.struct_passwd
    named_by: str
    unit: Unit | None = None

    def problem(self) -> str:
        """Return why this user can't run the unit's program, or this one; empty if it can.

        :raises ConfigInvalid: if the unit names an unknown group, or root may not become this
            user.
        """
        itself = [sys.executable, "-c", "import kongming.cmd.checks"]
        programs = [itself]
        if self.unit is not None and self.unit.program:
            programs.append([self.unit.program, "--version"])
        for command in programs:
            if why := self._why_not(command):
                return (
                    f"{self.named_by} has user {self.account.pw_name}, who can't run "
                    f"{command[0]}: {why}; if it was installed with a umask that excludes others, "
                    f"run 'chmod -R go+rX {sys.prefix}'"
                )
        return ""

    def become(self) -> None:
        """Execute this program again as that user; does not return.

        :raises ConfigInvalid: if the unit names an unknown group.
        """
        account, groups = self.account, self._groups()
        home = {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name}
        command = [sys.executable, *sys.orig_argv[1:]]
        if setpriv := shutil.which("setpriv"):
            # The service's capabilities decide what it can see in /proc.
            given = ",".join(["-all", *(f"+{name}" for name in self._capabilities())])
            command = [
                *(setpriv, f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}"),
                f"--groups={','.join(map(str, groups))}",
                *(f"--inh-caps={given}", f"--ambient-caps={given}"),
                *command,
            ]
        else:
            os.setgroups(groups)
            os.setresgid(*[account.pw_gid] * 3)
            os.setresuid(*[account.pw_uid] * 3)
        sys.stdout.flush()
        os.execve(command[0], command, {**os.environ, **home})  # noqa: S606

    def _why_not(self, command: Sequence[str]) -> str:
        account = self.account
        try:
            done = subprocess.run(  # noqa: S603, the unit's program
                command,
                user=account.pw_uid,
                group=account.pw_gid,
                extra_groups=self._groups(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EINVAL):
                # For example in a user namespace without this user.
                raise exception.ConfigInvalid(
                    f"{self.named_by} has user {account.pw_name}, and root may not become that "
                    f"user here ({error.strerror}): run this as that user"
                ) from None
            return error.strerror or type(error).__name__
        except subprocess.TimeoutExpired:
            return f"it does not exit within {_TIMEOUT_S:g} s"
        return f"it exits with {done.returncode}" if done.returncode else ""

    def _groups(self) -> list[int]:
        names = self.unit.groups if self.unit else ()
        try:
            more = [grp.getgrnam(name).gr_gid for name in names]
        except KeyError as error:
            raise exception.ConfigInvalid(
                f"{self.named_by} has SupplementaryGroups={' '.join(names)}, and one does "
                f"not exist ({error.args[0]}): create it, or change the unit by a drop-in"
            ) from None
        own = os.getgrouplist(self.account.pw_name, self.account.pw_gid)
        return list(dict.fromkeys([*own, *more]))

    def _capabilities(self) -> list[str]:
        """Return the unit's capabilities that can be passed on, in setpriv's names."""
        lines = dict(line.split(":\t") for line in _CAPABILITIES.read_text().splitlines())
        mask = int(lines["CapPrm"], 16)
        numbers = {"CAP_SYS_PTRACE": 19, "CAP_SYS_NICE": 23}
        requested = self.unit.capabilities if self.unit else ()
        return [
            name.removeprefix("CAP_").lower()
            for name in requested
            if name in numbers and mask >> numbers[name] & 1
        ]


def find(
    name: str | None,
    state_path: Path,
    root: Path | None = None,
    services: Collection[str] = SERVICES,
) -> ServiceUser | None:
    """Return the user that the service runs as; None if it is unknown.

    :param name: the operator's choice.
    :param services: those of this machine.
    :raises ConfigInvalid: if there is no such user.
    """
    unit = installed(root or ROOT, services)
    if name:
        return ServiceUser(_account(name, "--user"), "--user")
    if unit is not None:
        return ServiceUser(_account(unit.user, unit.name), unit.name, unit)
    try:
        owner = state_path.stat().st_uid
        return ServiceUser(pwd.getpwuid(owner), f"the owner of {state_path}") if owner else None
    except (OSError, KeyError):
        return None


def of(
    name: str | None, settings: Iterable[Setting], services: Collection[str] = SERVICES
) -> ServiceUser | None:
    """Return the user to check as; as the last resort, by the configuration's state path.

    :param name: the operator's choice.
    :param services: those of this machine.
    :raises ConfigInvalid: if there is no such user.
    """
    if found := find(name, ROOT / "absent", services=services):
        return found
    paths = [each.value for each in settings if (each.section, each.name) == _STATE_PATH]
    return find(None, Path(paths[-1] if paths else _DEFAULT_PATH), services=services)


def check(conf: cfg.ConfigOpts, services: Collection[str] = SERVICES) -> Iterator[Result]:
    """Report the user of the other checks, and whether it is the service's."""
    me, found = user(), find(conf.user, Path(conf.state_path), services=services)
    if found is None:
        yield good(f"checked as user {me}: no unit of Kongming names another user")
    elif found.account.pw_uid == os.geteuid():
        yield good(f"checked as user {me} ({found.named_by})")
    else:
        name = found.account.pw_name
        yield doubtful(
            f"checked as user {me}, but {found.named_by} has user {name}, whose permissions are "
            f"not known; run this as root, or 'sudo -u {name} kongming-status upgrade check'"
        )


def _account(name: str, named_by: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        raise exception.ConfigInvalid(
            f"{named_by} has user {name}, who does not exist: create the user, or name another"
        ) from None
