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

"""The checks of kongming-status, and its command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
import logging
import os
import sys
from typing import Any

from oslo_config import cfg
from oslo_upgradecheck import upgradecheck

from kongming import conf as kongming_conf
from kongming import exception, version
from kongming.cmd import backend  # noqa: F401
from kongming.configuration import files
from kongming.configuration.files import Setting
from kongming.runtime.escaping import escape
from kongming.status import configuration, role, service_user, timezones
from kongming.status.finding import Check, bad, good, run
from kongming.status.role import COMPUTE, Role, Roles

_USER = "Service's user"

_OTHERS = frozenset({"-h", "--help", "--version"})

Checks = tuple[tuple[str, Check], ...]


class UpgradeCommands(upgradecheck.UpgradeCommands):
    """The checks of this machine."""

    def __init__(self, conf: cfg.ConfigOpts, checks: Checks) -> None:
        def runner(check: Check) -> Callable[[Any], upgradecheck.Result]:
            return lambda _self: run(check, conf)

        self._upgrade_checks = tuple((name, runner(check)) for name, check in checks)


class _Configuration(cfg.ConfigOpts):
    """Options with ``--version``."""

    def __call__(self, *arguments: Any, **options: Any) -> None:
        super().__call__(*arguments, **{"version": version.release(), **options})


def check(name: str, unexpected: int) -> int:
    """Check this machine; return 0, 1 after a warning, 2 after a failure.

    :param name: the program's name, for the message of another error.
    :param unexpected: the exit status of such an error.
    """
    # Log lines of libraries are not part of the output, and may contain credentials.
    logging.getLogger().addHandler(logging.NullHandler())
    user, named, argv = leading(sys.argv[1:])
    conf = _Configuration()
    kongming_conf.set_library_defaults()
    kongming_conf.register_opts(conf)
    conf.register_cli_opts([service_user.OPTION, role.OPTION])
    try:
        # Errors of oslo.config quote lines, which may contain a password.
        settings = files.read(files.find(argv, "kongming"))
        roles = role.of(named, settings, service_user.ROOT)
        checks = _checks(roles)
        if os.geteuid() == 0 and "check" in argv and not _OTHERS & set(argv):
            checks = _as_the_service(user, settings, roles) or checks
        return int(upgradecheck.main(conf, "kongming", UpgradeCommands(conf, checks), argv))
    except exception.ConfigInvalid as error:
        problem = str(error)
    except (cfg.Error, ValueError) as error:
        problem = f"the configuration can't be read ({type(error).__name__})"
    print(f"{name}: {escape(problem)}", file=sys.stderr)  # noqa: T201
    return unexpected


def leading(argv: Sequence[str]) -> tuple[str | None, list[str], list[str]]:
    """Return the user and the roles that a command line names, and the line with these in front.

    oslo.config accepts options only before the command.
    """
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--user")
    parser.add_argument("--role", action="append", default=[])
    try:
        parsed, others = parser.parse_known_args([*argv])
    except argparse.ArgumentError:
        return None, [], [*argv]
    user = [] if parsed.user is None else [f"--user={parsed.user}"]
    return parsed.user, parsed.role, [*user, *(f"--role={name}" for name in parsed.role), *others]


def _checks(roles: Roles) -> Checks:
    """Return the checks of a machine with these roles, in the order of their dependencies."""
    parts = roles.roles
    return (
        (_USER, partial(service_user.check, services=roles.services)),
        ("Role", lambda _conf: iter([good(f"checked as {roles}")])),
        ("Configuration", configuration.check),
        ("Time zones", timezones.check),
        *(_of_controller() if Role.CONTROLLER in parts else ()),
        *(_of_compute_host() if COMPUTE & parts else ()),
        *(_of_calls(parts) if parts - {Role.HANDLER} else ()),
        *(_of_handler() if Role.HANDLER in parts else ()),
    )


# Each imports what other machines need not have installed.


def _of_controller() -> Checks:
    from kongming.status import database, nova_api

    return (("Database", database.check), ("Nova's API (all hosts)", nova_api.check_all))


def _of_compute_host() -> Checks:
    from kongming.status import cgroup, cpus, hook, hypervisor, observation, state

    return (
        ("State path", state.check),
        ("libvirt", hypervisor.check),
        ("Observation", observation.check),
        ("Control groups", cgroup.check),
        ("CPUs", cpus.check),
        ("libvirt hook", hook.check),
    )


def _of_calls(roles: frozenset[Role]) -> Checks:
    from kongming.status import broker

    of_host = Role.CONTROLLER not in roles
    return (("Message broker (calls)", partial(broker.check_calls, of_host=of_host)),)


def _of_handler() -> Checks:
    from kongming.status import broker, nova, nova_api, queues

    return (
        ("Message broker", broker.check_notifications),
        ("Nova's notifications", nova.check),
        ("Nova's API", nova_api.check_host),
        ("Queue limits", queues.check),
    )


def _as_the_service(name: str | None, settings: list[Setting], roles: Roles) -> Checks | None:
    """Switch from root to the service's user; return the only check if that is impossible."""
    try:
        found = service_user.of(name, settings, roles.services)
        if found is None or found.account.pw_uid == 0:
            return None
        if not (problem := found.problem()):
            found.become()
    except exception.ConfigInvalid as error:
        problem = str(error)
    # Other checks would give wrong results then.
    return ((_USER, lambda _conf: iter([bad(problem)])),)
