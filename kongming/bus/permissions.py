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

"""The permissions that each user needs at RabbitMQ, and no others.

RabbitMQ matches the names of queues and exchanges alike: a permission to configure, write or read
a name holds for both kinds.
"""

from __future__ import annotations

from dataclasses import dataclass
import re

from kongming.allocation.host_name import in_queues

_CONDUCTOR = "kongming-conductor"
_EXECUTOR = "kongming-executor"
# The default exchange, which routes answers directly to a queue.
_DEFAULT = "amq.default"
# oslo.messaging's suffix to the host's name: a UUID, or a name and a number.
_LAST_PART = "([0-9a-f]{32}|[^:]+:[0-9]{1,9})"


@dataclass(frozen=True, slots=True)
class Permissions:
    """The permissions of one user in a virtual host: regular expressions of whole names.

    :ivar configure: what it may declare and delete.
    :ivar write: what it may publish to, and bind as the target.
    :ivar read: what it may consume and purge, and bind as the source.
    :ivar exchange: the topic exchange of the next two; None if any routing key may be used.
    :ivar topic_write: the routing keys that it may publish with.
    :ivar topic_read: the routing keys that it may bind with.
    """

    user: str
    configure: str
    write: str
    read: str
    exchange: str | None = None
    topic_write: str | None = None
    topic_read: str | None = None


def of_controllers(user: str, exchange: str) -> Permissions:
    """Return the permissions of API and conductors."""
    own = [_or_parts(_CONDUCTOR), "reply_.*"]
    return Permissions(
        user,
        configure=_any_of(_literal(exchange), *own),
        write=_any_of(_literal(_DEFAULT), _literal(exchange), *own),
        read=_any_of(_literal(exchange), *own),
    )


def of_executor(user: str, host: str, exchange: str) -> Permissions:
    """Return the permissions of the ``kongming-executor`` of a host."""
    name = _literal(in_queues(host))
    queue = rf"{_EXECUTOR}\.{name}"
    own = [queue, f"reply_{name}:{_LAST_PART}"]
    return Permissions(
        user,
        configure=_any_of(*own),
        write=_any_of(_literal(_DEFAULT), _literal(exchange), *own),
        read=_any_of(_literal(exchange), *own),
        exchange=exchange,
        topic_write=_any_of(_CONDUCTOR),
        topic_read=_any_of(queue),
    )


def of_notification_handler(
    user: str, host: str, exchange: str, topics: tuple[str, ...]
) -> Permissions:
    """Return the permissions of the ``kongming-notification-handler`` of a host.

    :param exchange: the exchange of Nova's notifications.
    :param topics: their topics.
    """
    own = f"kongming.{host}"
    # Without a pool it reads the topic's queue, which is its own only if the topic is.
    queues = [_literal(each) for each in (own, *(f"{own}.info" for t in topics if t == own))]
    return Permissions(
        user,
        configure=_any_of(*queues),
        write=_any_of(*queues),
        read=_any_of(_literal(exchange), *queues),
        exchange=exchange,
        # It sends nothing.
        topic_write="^$",
        topic_read=_any_of(*(rf"{_literal(topic)}\.info" for topic in topics)),
    )


def _or_parts(name: str) -> str:
    """Return a pattern of a topic, and of the names that oslo.messaging derives from it."""
    return rf"{name}([._].+)?"


def _any_of(*patterns: str) -> str:
    return f"^({'|'.join(patterns)})$" if len(patterns) > 1 else f"^{patterns[0]}$"


def _literal(name: str) -> str:
    # A dash needs no escape there, and people read the result, too.
    return re.escape(name).replace(r"\-", "-")
