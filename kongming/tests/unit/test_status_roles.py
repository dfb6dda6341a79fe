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

"""The roles of a machine, and the checks of each."""

import pytest

from kongming.cmd import checks as command
from kongming.configuration.files import Setting
from kongming.status import role, unit
from kongming.status.role import Role

HANDLER, EXECUTOR, CONTROLLER = Role.HANDLER, Role.EXECUTOR, Role.CONTROLLER
CONDUCTOR, API = "kongming-conductor", "kongming-api"
OF_HANDLER, OF_EXECUTOR = "kongming-notification-handler", "kongming-executor"


@pytest.fixture
def machine(tmp_path):
    """Return a function that returns the roles of a machine with these units and sections."""

    def machine(*units, enabled=(), sections=(), named=()):
        folder = tmp_path / "etc/systemd/system"
        (folder / "multi-user.target.wants").mkdir(parents=True)
        for name in (*units, *enabled):
            (folder / f"{name}.service").write_text("[Service]\n")
        for name in enabled:
            (folder / f"multi-user.target.wants/{name}.service").touch()
        settings = [Setting("k.conf", 1, name, "option", "value") for name in sections]
        return role.of(named, settings, tmp_path)

    return machine


def checks(roles):
    return [name for name, _ in command._checks(roles)]


@pytest.mark.parametrize(
    ("service", "expected"),
    [(OF_HANDLER, HANDLER), (OF_EXECUTOR, EXECUTOR), (CONDUCTOR, CONTROLLER), (API, CONTROLLER)],
)
def test_an_installed_unit_shows_the_role(machine, service, expected):
    roles = machine(service, sections=["database", "notification_handler"])
    assert roles.roles == {expected}
    assert str(roles) == f"{expected} ({service}.service)"


def test_an_enabled_unit_counts_more_than_others(machine):
    roles = machine(OF_HANDLER, CONDUCTOR, enabled=[OF_EXECUTOR])
    assert (roles.roles, roles.services) == ({EXECUTOR}, (OF_EXECUTOR,))


def test_a_machine_may_have_several_roles(machine):
    roles = machine(enabled=[OF_EXECUTOR, CONDUCTOR, API])
    assert roles.roles == {EXECUTOR, CONTROLLER}
    assert roles.services == (OF_EXECUTOR, CONDUCTOR, API)
    assert str(roles).startswith("executor, controller (")


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("notification_handler", HANDLER),
        ("oslo_messaging_notifications", HANDLER),
        ("executor", EXECUTOR),
        ("database", CONTROLLER),
        ("conductor", CONTROLLER),
        ("api", CONTROLLER),
        ("keystone_authtoken", CONTROLLER),
    ],
)
def test_without_units_the_configuration_shows_the_role(machine, section, expected):
    roles = machine(sections=["DEFAULT", "libvirt", section])
    assert str(roles) == f"{expected} (configured: [{section}])"


def test_without_any_sign_the_role_is_assumed_and_reported_as_such(machine):
    roles = machine(sections=["DEFAULT", "libvirt"])
    assert roles.roles == {HANDLER}
    assert "give --role" in str(roles)


def test_a_named_role_counts_more_than_all_else(machine):
    roles = machine(enabled=[OF_EXECUTOR], named=["controller", "handler", "unknown"])
    assert roles.roles == {HANDLER, CONTROLLER}
    assert roles.services == (OF_HANDLER, CONDUCTOR, API)
    assert roles.source == "--role"


def test_each_service_has_a_role():
    assert {*role._OF_SERVICES} == {*unit.SERVICES}


@pytest.mark.parametrize("named", [*Role])
def test_the_checks_are_those_of_the_role(machine, named):
    names = checks(machine(named=[named]))
    assert names[:3] == ["Service's user", "Role", "Configuration"]
    on_compute_host = named is not CONTROLLER
    assert ("libvirt" in names) is ("State path" in names) is on_compute_host
    assert ("Database" in names) is not on_compute_host
    assert ("Message broker" in names) is ("Queue limits" in names) is (named is HANDLER)
    assert ("Message broker (calls)" in names) is (named is not HANDLER)


def test_several_roles_have_each_check_once(machine):
    names = checks(machine(named=[*Role]))
    assert len(names) == len({*names}) == 17


@pytest.mark.parametrize(
    ("line", "user", "named", "rest"),
    [
        (["upgrade", "check"], None, [], ["upgrade", "check"]),
        (
            ["upgrade", "check", "--user", "a", "-v"], "a", [],
            ["--user=a", "upgrade", "check", "-v"],
        ),
        (["--user=a", "upgrade"], "a", [], ["--user=a", "upgrade"]),
        (["upgrade", "--user"], None, [], ["upgrade", "--user"]),
        (
            ["upgrade", "--role", "a", "--role=b"], None, ["a", "b"],
            ["--role=a", "--role=b", "upgrade"],
        ),
    ],
)  # fmt: skip
def test_user_and_roles_may_be_named_before_and_after_the_command(line, user, named, rest):
    assert command.leading(line) == (user, named, rest)
