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

"""RabbitMQ's permissions: which names they let a user have, and which not."""

import itertools
from pathlib import Path
import re
import shlex
import subprocess
import sys

import pytest

from kongming.bus import permissions
from kongming.rpc.bus import CONDUCTOR, EXCHANGE, EXECUTOR

HEX = "0123456789abcdef" * 2
CONTROLLERS = permissions.of_controllers("kongming", EXCHANGE)
HOST = permissions.of_executor("kongming-c1", "c1.example.org", EXCHANGE)
HANDLER = permissions.of_notification_handler(
    "kongming-c1", "c1.example.org", "nova", ("versioned_notifications", "kongming.c1")
)
RIGHTS = ("configure", "write", "read")

# What oslo.messaging declares for a server, and for who calls.
OF_CONTROLLERS = [
    CONDUCTOR.topic,
    f"{CONDUCTOR.topic}.controller-1",
    f"{CONDUCTOR.topic}_fanout",
    f"{CONDUCTOR.topic}_fanout_{HEX}",
    f"reply_{HEX}",
]
OF_HOST = [
    EXECUTOR.topic,
    f"{EXECUTOR.topic}.c1.example.org",
    f"{EXECUTOR.topic}_fanout",
    f"{EXECUTOR.topic}_fanout_{HEX}",
    f"reply_c1.example.org:{HEX}",
]
OF_ANOTHER = [
    f"{EXECUTOR.topic}.c2",
    f"{EXECUTOR.topic}.c1.example.org.evil",
    f"{EXECUTOR.topic}.c1",
    f"{EXECUTOR.topic}.c1-example-org",
    f"{EXECUTOR.topic}s",
    f"reply_c2:{HEX}",
    f"reply_c1:{HEX}",
    "reply_c1.example.org",
    f"reply_xc1.example.org:{HEX}",
]
OF_OTHERS = ["nova", "conductor", "compute.c1", "kongming.c1", "", "amq.topic", "amq.fanout"]


def lets(pattern, name):
    """Tell what RabbitMQ would."""
    return re.search(pattern, name) is not None


@pytest.mark.parametrize("right", RIGHTS)
def test_controllers_may_what_they_need(right):
    pattern = getattr(CONTROLLERS, right)
    assert all(lets(pattern, name) for name in [*OF_CONTROLLERS, EXCHANGE])
    assert not any(lets(pattern, name) for name in [*OF_HOST[:-1], *OF_OTHERS])
    assert lets(pattern, "amq.default") is (right == "write")


@pytest.mark.parametrize("right", RIGHTS)
def test_a_host_may_what_it_needs_and_nothing_of_others(right):
    pattern = getattr(HOST, right)
    assert all(lets(pattern, name) for name in [*OF_HOST, EXCHANGE])
    assert not any(lets(pattern, name) for name in [*OF_CONTROLLERS, *OF_ANOTHER, *OF_OTHERS])
    assert lets(pattern, "amq.default") is (right == "write")


def test_a_host_publishes_to_conductors_and_hears_what_is_for_it():
    keys = [*OF_CONTROLLERS, *OF_HOST, *OF_ANOTHER, "#", "*", f"{EXECUTOR.topic}.#"]
    assert [key for key in keys if lets(HOST.topic_write, key)] == [CONDUCTOR.topic]
    assert [key for key in keys if lets(HOST.topic_read, key)] == OF_HOST[:2]
    assert HOST.exchange == EXCHANGE
    assert CONTROLLERS.exchange is None


def test_an_exchange_of_rabbitmqs_own_is_declared_by_nobody():
    of_all = [
        permissions.of_controllers("kongming", "amq.topic"),
        permissions.of_executor("kongming-c1", "c1", "amq.topic"),
    ]
    for each in of_all:
        assert not lets(each.configure, "amq.topic")
        assert lets(each.write, "amq.topic")
        assert lets(each.read, "amq.topic")
        assert not lets(each.write, "amqxtopic")


def test_a_notification_handler_only_listens():
    for right, allowed in (
        ("configure", ["nova", "kongming.c1.example.org"]),
        ("write", ["kongming.c1.example.org"]),
        ("read", ["nova", "kongming.c1.example.org"]),
    ):
        pattern = getattr(HANDLER, right)
        names = [*OF_HOST, *OF_CONTROLLERS, *OF_OTHERS, "kongming.c1.example.org", "kongming.c2"]
        assert [name for name in sorted(names) if lets(pattern, name)] == sorted(allowed)
    keys = ["versioned_notifications.info", "kongming.c1.info", "conductor", "#", "compute.c1"]
    assert [key for key in keys if lets(HANDLER.topic_read, key)] == keys[:2]
    assert not any(lets(HANDLER.topic_write, key) for key in keys)


def run(*arguments):
    command = [Path(sys.executable).with_name("kongming-manage"), "broker", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_command_writes_what_rabbitmqctl_takes():
    ended = run("permissions", "--vhost", "a b", "c1", "c2")
    lines = [shlex.split(line) for line in ended.stdout.splitlines()]
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


@pytest.mark.parametrize("host", ["a b", "-", "x;y", "ä", "x" * 256])
def test_what_is_no_host_is_refused(host):
    ended = run("permissions", "--", host)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "is not the name of a host" in ended.stderr


def test_a_key_is_derived_from_the_master_key_only(tmp_path):
    master = tmp_path / "rpc.key"
    master.write_text(run("key", "create").stdout)
    conf = tmp_path / "kongming.conf"
    conf.write_text(f"[rpc]\nkey_file = {master}\n")
    command = [Path(sys.executable).with_name("kongming-manage"), "--config-file", conf]

    def derive():
        arguments = ["broker", "key", "derive", "c1"]
        return subprocess.run([*command, *arguments], capture_output=True, text=True)

    derived = derive()
    assert re.fullmatch(r"host c1 [0-9a-f]{64}\n", derived.stdout)
    assert derive().stdout == derived.stdout
    master.write_text(derived.stdout)
    ended = derive()
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "need the master key" in ended.stderr
