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

"""kongming-status: tells what is wrong on this host before a user finds out."""

from __future__ import annotations

from collections.abc import Callable
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
from kongming.runtime import streams
from kongming.runtime.escaping import escape
from kongming.status import (
    broker,
    cgroup,
    configuration,
    cpus,
    database,
    hook,
    hypervisor,
    nova,
    nova_api,
    observation,
    queues,
    service_user,
    state,
    timezones,
)
from kongming.status.finding import Check, bad, run

NAME = "kongming-status"

_UNEXPECTED = 255

_OTHERS = frozenset({"-h", "--help", "--version"})

Checks = tuple[tuple[str, Check], ...]

_CHECKS: Checks = (
    ("Service's user", service_user.check),
    ("Configuration", configuration.check),
    ("State path", state.check),
    ("Time zones", timezones.check),
    ("Database", database.check),
    ("libvirt", hypervisor.check),
    ("Observation", observation.check),
    ("Control groups", cgroup.check),
    ("CPUs", cpus.check),
    ("libvirt hook", hook.check),
    ("Message broker", broker.check),
    ("Nova's notifications", nova.check),
    ("Nova's API", nova_api.check),
    ("Queue limits", queues.check),
)


class UpgradeCommands(upgradecheck.UpgradeCommands):
    """The checks, in the order of what depends on what."""

    def __init__(self, conf: cfg.ConfigOpts, checks: Checks) -> None:
        def runner(check: Check) -> Callable[[Any], upgradecheck.Result]:
            return lambda _self: run(check, conf)

        self._upgrade_checks = tuple((name, runner(check)) for name, check in checks)


class _Configuration(cfg.ConfigOpts):
    """oslo.config's, which knows ``--version``."""

    def __call__(self, *arguments: Any, **options: Any) -> None:
        super().__call__(*arguments, **{"version": version.release(), **options})


def main() -> int:
    """Check; give 0, 1 after a warning, 2 after a failure, 255 if it can't be checked."""
    return streams.run(NAME, _main, unwritten=_UNEXPECTED)


def _main() -> int:
    # What libraries log is none of the answer, and may hold credentials.
    logging.getLogger().addHandler(logging.NullHandler())
    name, argv = service_user.user_option(sys.argv[1:])
    conf = _Configuration()
    kongming_conf.set_library_defaults()
    kongming_conf.register_opts(conf)
    conf.register_cli_opt(service_user.OPTION)
    try:
        # oslo.config's own errors quote lines, which may hold a password.
        files.read(files.find(argv, "kongming"))
        checks = _as_the_service(name, argv)
        return int(upgradecheck.main(conf, "kongming", UpgradeCommands(conf, checks), argv))
    except exception.ConfigInvalid as error:
        said = str(error)
    except (cfg.Error, ValueError) as error:
        said = f"the configuration can't be read ({type(error).__name__})"
    print(f"{NAME}: {escape(said)}", file=sys.stderr)  # noqa: T201
    return _UNEXPECTED


def _as_the_service(name: str | None, argv: list[str]) -> Checks:
    """Return the checks that this user can make; root goes on as the user of the service."""
    if os.geteuid() != 0 or "check" not in argv or _OTHERS & set(argv):
        return _CHECKS
    try:
        found = service_user.of(name, argv)
        if found is None or found.account.pw_uid == 0:
            return _CHECKS
        if not (problem := found.problem()):
            found.become()
    except exception.ConfigInvalid as error:
        problem = str(error)
    # Nothing else can be judged then.
    return ((_CHECKS[0][0], lambda _conf: iter([bad(problem)])),)


if __name__ == "__main__":
    sys.exit(main())
