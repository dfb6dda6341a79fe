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

"""The roles of this machine: they decide which checks apply."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
import enum
from pathlib import Path

from oslo_config import cfg, types

from kongming.configuration.files import Setting
from kongming.status import unit


class Role(enum.StrEnum):
    """What a machine does for Kongming."""

    HANDLER = "handler"
    EXECUTOR = "executor"
    CONTROLLER = "controller"


#: The roles of compute hosts.
COMPUTE = frozenset({Role.HANDLER, Role.EXECUTOR})

OPTION = cfg.MultiOpt(
    "role",
    item_type=types.String(choices=[*Role]),
    help="Check the machine for this role; may be repeated (default: the roles of the installed "
    "units, or else of the sections in the configuration files).",
)

_OF_SERVICES = {
    "kongming-notification-handler": Role.HANDLER,
    "kongming-executor": Role.EXECUTOR,
    "kongming-conductor": Role.CONTROLLER,
    "kongming-api": Role.CONTROLLER,
}
_OF_SECTIONS = {
    "notification_handler": Role.HANDLER,
    "oslo_messaging_notifications": Role.HANDLER,
    "executor": Role.EXECUTOR,
    "api": Role.CONTROLLER,
    "conductor": Role.CONTROLLER,
    "database": Role.CONTROLLER,
    "keystone_authtoken": Role.CONTROLLER,
}


@dataclass(frozen=True, slots=True)
class Roles:
    """The roles of this machine.

    :ivar source: what shows them.
    """

    roles: frozenset[Role]
    source: str

    def __str__(self) -> str:
        return f"{', '.join(role for role in Role if role in self.roles)} ({self.source})"

    @property
    def services(self) -> tuple[str, ...]:
        """The services of these roles, in the order of :data:`unit.SERVICES`."""
        return tuple(name for name in unit.SERVICES if _OF_SERVICES[name] in self.roles)


def of(named: Sequence[str], settings: Iterable[Setting], root: Path) -> Roles:
    """Return the roles of this machine.

    :param named: the operator's choice; unknown names are ignored.
    :param root: the root of the file system with the units.
    """
    if chosen := {Role(name) for name in named if name in {*Role}}:
        return Roles(frozenset(chosen), "--role")
    if services := unit.services(root):
        units = ", ".join(f"{name}.service" for name in services)
        return Roles(frozenset(_OF_SERVICES[name] for name in services), units)
    sections = [name for name in _OF_SECTIONS if name in {each.section for each in settings}]
    if sections:
        listed = ", ".join(f"[{name}]" for name in sections)
        return Roles(frozenset(_OF_SECTIONS[name] for name in sections), f"configured: {listed}")
    return Roles(
        frozenset({Role.HANDLER}),
        "assumed: no unit of Kongming is installed and no section of the configuration belongs to "
        "one role; give --role for another one",
    )
