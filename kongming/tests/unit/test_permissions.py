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

import re

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
# The last one with [oslo_messaging_rabbit] use_queue_manager.
OF_HOST = [
    f"{EXECUTOR.topic}.c1.example.org",
    f"reply_c1.example.org:{HEX}",
    "reply_c1.example.org:kongming-executor:17",
]
SHARED = [EXECUTOR.topic, f"{EXECUTOR.topic}_fanout", f"{EXECUTOR.topic}_fanout_{HEX}"]
OF_ANOTHER = [
    f"{EXECUTOR.topic}.c2",
    f"{EXECUTOR.topic}.c1.example.org.evil",
    f"{EXECUTOR.topic}.c1",
    f"{EXECUTOR.topic}.c1-example-org",
    f"{EXECUTOR.topic}s",
    f"reply_c2:{HEX}",
    f"reply_c1:{HEX}",
    # IPv6 addresses have colons, too.
    f"reply_c1.example.org:0:{HEX}",
    "reply_c1.example.org:0:kongming-executor:17",
    "reply_c1.example.org",
    f"reply_xc1.example.org:{HEX}",
]
OF_OTHERS = ["nova", "conductor", "compute.c1", "kongming.c1", "", "amq.topic", "amq.fanout"]


def lets(pattern, name):
    """Return whether RabbitMQ permits it."""
    return re.search(pattern, name) is not None


@pytest.mark.parametrize("right", RIGHTS)
def test_controllers_have_the_permissions_that_they_need(right):
    pattern = getattr(CONTROLLERS, right)
    assert all(lets(pattern, name) for name in [*OF_CONTROLLERS, EXCHANGE])
    assert not any(lets(pattern, name) for name in [OF_HOST[0], *SHARED, *OF_OTHERS])
    assert lets(pattern, "amq.default") is (right == "write")


@pytest.mark.parametrize("right", RIGHTS)
def test_a_host_has_the_permissions_that_it_needs_and_none_for_other_hosts(right):
    pattern = getattr(HOST, right)
    assert all(lets(pattern, name) for name in OF_HOST)
    others = [*OF_CONTROLLERS, *OF_ANOTHER, *OF_OTHERS, *SHARED]
    assert not any(lets(pattern, name) for name in others)
    assert lets(pattern, "amq.default") is (right == "write")
    # Who may declare an exchange may delete it.
    assert lets(pattern, EXCHANGE) is (right != "configure")


def test_a_host_publishes_to_conductors_and_receives_its_own_messages():
    keys = [*OF_CONTROLLERS, *OF_HOST, *SHARED, *OF_ANOTHER, "#", "*", f"{EXECUTOR.topic}.#"]
    assert [key for key in keys if lets(HOST.topic_write, key)] == [CONDUCTOR.topic]
    assert [key for key in keys if lets(HOST.topic_read, key)] == OF_HOST[:1]
    assert HOST.exchange == EXCHANGE
    assert CONTROLLERS.exchange is None


def test_a_notification_handler_only_listens():
    for right, allowed in (
        ("configure", ["kongming.c1.example.org"]),
        ("write", ["kongming.c1.example.org"]),
        ("read", ["nova", "kongming.c1.example.org"]),
    ):
        pattern = getattr(HANDLER, right)
        names = [*OF_HOST, *OF_CONTROLLERS, *OF_OTHERS, "kongming.c1.example.org", "kongming.c2"]
        assert [name for name in sorted(names) if lets(pattern, name)] == sorted(allowed)
    # The queue of a topic is a host's own if the topic is.
    topics = ("kongming.c1", "kongming.c2", "versioned_notifications")
    own = permissions.of_notification_handler("kongming-c1", "c1", "nova", topics)
    for right in RIGHTS:
        names = ["kongming.c1", "kongming.c1.info", "kongming.c2.info", f"{topics[-1]}.info"]
        assert [name for name in names if lets(getattr(own, right), name)] == names[:2]
    keys = ["versioned_notifications.info", "kongming.c1.info", "conductor", "#", "compute.c1"]
    assert [key for key in keys if lets(HANDLER.topic_read, key)] == keys[:2]
    assert not any(lets(HANDLER.topic_write, key) for key in keys)
