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
"""``openstack kongming`` with a standard output, input or terminal that is not as usual."""

import io
import json
import os
import shlex
import signal
import subprocess

import pytest

from kongming.tests import commands
from kongming.tests.api import Api
from kongming.tests.commands import client_at
from kongming.tests.databases import asking, instance
from kongming.tests.testbed.scripted_api import ScriptedApi

NAME = "诸葛"
COMMANDS = [
    ("allocation show", instance(1)),
    ("allocation list",),
    ("allocation history", instance(1)),
    ("allocation map show", "green"),
    ("allocation map export", "green"),
    ("allocation map list", "-f", "csv"),
    ("host list", "-f", "json"),
]
CHANGES = [
    ("allocation set", instance(1), "--cpu-shares", "7"),
    ("allocation unset", instance(1)),
    ("allocation map delete", "green"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ScriptedApi(Api(tmp_path_factory.mktemp("api"))) as server:
        yield server


@pytest.fixture
def run(server):
    by = {"generation": None, "requested_by": NAME, "request_id": "x"}
    server.api.allocations.put(instance(1), asking("1"), **by)
    server.api.allocations.put_map("green", {instance(3): asking("1")}, **by)

    def run(name, *arguments, stdout=None):
        return commands.run(client_at(server.url), name, *arguments, stdout=stdout)

    return run


def shown(run, command, stdout):
    """Run a command that writes to a file; return the status and the messages."""
    name, *arguments = command
    ended = run(name, *arguments, stdout=Output(stdout))
    return ended.status, ended.stderr


class Output(io.TextIOWrapper):
    """Standard output; what is in it can't be read again."""

    def __init__(self, raw):
        super().__init__(io.BufferedWriter(raw), encoding="utf-8")

    def getvalue(self):
        return ""


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_full_disk_is_one_line(run, command):
    status, stderr = shown(run, command, io.FileIO("/dev/full", "w"))
    assert status == 1
    assert stderr.splitlines()[-1] == (
        "the standard output can't be written (no space left on device)"
    )


@pytest.mark.parametrize("command", CHANGES, ids=lambda command: command[0])
def test_an_accepted_change_is_reported_where_it_can_not_be_shown(run, command):
    status, stderr = shown(run, command, io.FileIO("/dev/full", "w"))
    assert status == 1
    (line,) = stderr.splitlines()
    assert line.startswith("the standard output can't be written (no space left on device); the ")
    assert " was accepted" in line


@pytest.mark.parametrize("command", [*COMMANDS, *CHANGES], ids=lambda command: command[0])
def test_a_reader_that_closes_the_pipe_gets_no_message(run, command):
    reader, writer = os.pipe()
    os.close(reader)
    name, *arguments = command
    with pytest.raises(BrokenPipeError):
        run(name, *arguments, stdout=Output(io.FileIO(writer, "w")))


@pytest.mark.parametrize("form", ["table", "value", "csv"])
def test_a_name_that_the_encoding_lacks_is_shown_escaped(run, form):
    raw = io.BytesIO()
    stdout = io.TextIOWrapper(raw, encoding="ascii")
    stdout.getvalue = raw.getvalue
    ended = run("allocation history", instance(1), "-c", "requested_by", "-f", form, stdout=stdout)
    assert (ended.status, ended.stderr) == (0, "")
    assert b"\\u8bf8\\u845b" in ended.output


@pytest.fixture
def openstack(server, openstack_command, run):
    """Run the installed command by a shell; return its exit status, output and errors."""

    def openstack(redirected, **environment):
        arguments = f"--os-auth-type=none --os-kongming-endpoint={server.url} kongming"
        ended = subprocess.run(
            ["bash", "-c", f"{shlex.join(openstack_command)} {arguments} {redirected}"],
            input="",
            capture_output=True,
            text=True,
            env={name: value for name, value in os.environ.items() if name[:3] != "OS_"}
            | environment,
        )
        return ended.returncode, ended.stdout, ended.stderr

    return openstack


@pytest.mark.parametrize(
    ("redirected", "message"),
    [
        ("allocation list >&-", "the standard output is closed\n"),
        ("host list -f json > /dev/full", "can't be written (no space left on device)\n"),
        ("allocation map list -f csv | true; exit ${PIPESTATUS[0]}", ""),
    ],
)
def test_the_installed_command_reports_a_failed_output_in_one_line_or_not_at_all(
    openstack, redirected, message
):
    status, output, error = openstack(redirected)
    assert (status, output) == (1 if message else 141, "")
    assert error.endswith(message)
    assert error.count("\n") == len(message.splitlines())


def test_the_installed_command_needs_no_terminal(openstack):
    names = {"LC_ALL": "C", "COLUMNS": "0", "TERM": "dumb"}
    status, output, error = openstack(f"allocation history {instance(1)} <&-", **names)
    assert (status, error) == (0, "")
    assert NAME in output or "\\u8bf8" in output
    status, output, error = openstack(f"allocation show {instance(1)} -f json 2>&-", **names)
    assert (status, error) == (0, "")
    assert json.loads(output)["instance_uuid"] == instance(1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_installed_command_reports_an_accepted_change_when_it_is_interrupted(
    server, openstack_command, number
):
    uuid = instance(int(number))
    arguments = f"--os-auth-type=none --os-kongming-endpoint={server.url} kongming allocation set"
    options = ("--cpu-shares", "7", "--wait", "-f", "json")
    with subprocess.Popen(
        # What was started in the background ignores SIGINT.
        ["env", "--default-signal=INT", *openstack_command, *arguments.split(), uuid, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name[:3] != "OS_"},
    ) as process:
        assert process.stderr.readline() == "0 of 1 applied (1 pending)\n"
        process.send_signal(number)
        output, stderr = process.communicate()
    assert process.returncode == 128 + number
    assert stderr == (
        f"interrupted; the allocation of instance {uuid} was accepted (generation 1) and stays "
        "in force\n"
    )
    assert (json.loads(output)["generation"], json.loads(output)["status"]) == (1, "pending")
