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

"""Packages that are missing: what the programs say instead of a traceback."""

import io
from types import SimpleNamespace

import pytest

from kongming import exception
from kongming.cmd import launch
from kongming.manage import commands
from kongming.manage.commands import Commands
from kongming.runtime import extras, streams
from kongming.runtime.signals import Signals

LIBVIRT = ModuleNotFoundError("No module named 'libvirt.x'", name="libvirt.x")
OWN = ModuleNotFoundError("No module named 'kongming.gone'", name="kongming.gone")


class EntryPoint:
    """One that can't be imported, or that can."""

    def __init__(self, name, error=None):
        self.name, self.value, self._error = name, "module:Class", error

    def load(self):
        if self._error is not None:
            raise self._error
        return Commands


def raising(error):
    raise error


def test_a_missing_package_is_named_with_the_extras():
    message = extras.missing(LIBVIRT)
    assert message.startswith("the Python module libvirt is not installed")
    assert "kongming[compute]" in message
    assert "kongming[controller]" in message


def test_a_missing_module_of_kongming_is_an_incomplete_installation():
    assert extras.missing(OWN) == (
        "the installation is incomplete, kongming.gone is missing: install Kongming again"
    )


def test_a_program_without_its_packages_ends_with_one_line(capsys):
    assert streams.run("kongming-x", lambda: raising(LIBVIRT), unexpected=255) == 255
    message = capsys.readouterr().err
    assert message.startswith("kongming-x: the Python module libvirt is not installed")
    assert message.count("\n") == 1


def test_a_service_without_its_packages_does_not_start(monkeypatch, tmp_path, caplog):
    path = tmp_path / "kongming.conf"
    path.write_text("[DEFAULT]\nhost = a\ntransport_url = rabbit://h/\n")
    monkeypatch.setattr("sys.argv", ["x", f"--config-file={path}"])
    monkeypatch.setattr(launch, "set_up_log", lambda _conf: None)
    signals = SimpleNamespace(spec=Signals, end_requested=lambda: False)
    assert launch.run("x", lambda _conf: raising(LIBVIRT), signals) == 1
    assert "Can't start: the Python module libvirt is not installed" in caplog.text


@pytest.fixture
def found(monkeypatch):
    points = [EntryPoint("host_show", LIBVIRT), EntryPoint("db_sync")]
    monkeypatch.setattr(commands, "entry_points", lambda group: points)
    return Commands("kongming.manage")


def test_commands_are_found_without_being_imported(found):
    assert {*found.commands} == {"host show", "db sync"}
    command, name, rest = found.find_command(["db", "sync", "x"])
    assert (command, name, rest) == (Commands, "db sync", ["x"])


def test_a_command_without_its_packages_says_so_whatever_its_arguments(found):
    command, _, rest = found.find_command(["host", "show", "--width", "9", "x"])
    app = SimpleNamespace(stdout=io.StringIO(), stderr=io.StringIO())
    made = command(app, None)
    assert made.get_description() == "Not available on this machine."
    with pytest.raises(exception.KongmingError, match="module libvirt is not installed"):
        made.run(made.get_parser("x").parse_args(rest))
