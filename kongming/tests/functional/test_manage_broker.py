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

"""kongming-manage broker: RabbitMQ's permissions and the keys, as an operator gets them."""

import itertools
import json
import re
import shlex
import subprocess

import pytest

from kongming.bus import permissions
from kongming.rpc.bus import EXCHANGE

RIGHTS = ("configure", "write", "read")


@pytest.fixture
def run(kongming_manage):
    """Run a command of kongming-manage broker."""

    def run(*arguments, options=()):
        command = [*kongming_manage, *options, "broker", *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    return run


def test_the_command_writes_arguments_that_rabbitmqctl_accepts(run):
    ended = run("permissions", "--vhost", "a b", "c1", "c2")
    lines = [shlex.split(line) for line in ended.stdout.splitlines()]
    assert {tuple(line[2:4]) for line in lines} == {("-p", "a b")}
    commands = [(line[1], line[4]) for line in lines]
    assert commands == [
        ("set_permissions", "kongming"),
        ("clear_topic_permissions", "kongming"),
        *itertools.chain.from_iterable(
            (
                ("set_permissions", f"kongming-{host}"),
                ("set_topic_permissions", f"kongming-{host}"),
            )
            for host in ("c1", "c2")
        ),
    ]
    assert lines[2][5:] == [
        getattr(permissions.of_executor("x", "c1", EXCHANGE), r) for r in RIGHTS
    ]
    assert lines[3][5] == EXCHANGE


def test_the_command_has_json_output_for_programs(run):
    ended = run("permissions", "--trigger", "notification", "-f", "json", "c1")
    (shown,) = json.loads(ended.stdout)
    expected = permissions.of_notification_handler(
        "kongming-c1", "c1", "nova", ("versioned_notifications",)
    )
    assert (shown["vhost"], shown["exchange"]) == ("/", "nova")
    assert [shown[right] for right in RIGHTS] == [getattr(expected, right) for right in RIGHTS]
    ended = run("permissions", "-c", "user", "c1")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "the shell commands need all columns" in ended.stderr


@pytest.mark.parametrize("host", ["a b", "x;y"])
def test_an_invalid_host_is_refused(run, host):
    ended = run("permissions", "--", host)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "is not a host name" in ended.stderr


def test_a_key_is_derived_from_the_master_key_only(run, tmp_path):
    master = tmp_path / "rpc.key"
    master.write_text(run("key", "create").stdout)
    conf = tmp_path / "kongming.conf"
    conf.write_text(f"[rpc]\nkey_file = {master}\n")

    def derive():
        return run("key", "derive", "c1", options=["--config-file", conf])

    derived = derive()
    assert re.fullmatch(r"host c1 [0-9a-f]{64}\n", derived.stdout)
    assert derive().stdout == derived.stdout
    master.write_text(derived.stdout)
    ended = derive()
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "need the master key" in ended.stderr
