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

"""Connections of a compute host: they declare at RabbitMQ what is the host's own, nothing else.

RabbitMQ lets a user delete what it lets it declare. Who deletes an exchange that others use can
declare another one in its place, which hands all messages to a queue of its own; who deletes a
shared queue can keep all others from listening. So a host's user gets the right to neither, and
oslo.messaging, which declares all that it uses, is kept from it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import amqp
from kombu.entity import Exchange

from kongming.bus.keeper import Connection, Keeper, keep


def restrict(transport: Any, keeper: Keeper, shared: str = "") -> None:
    """Have a transport declare only queues of its own, and use exchanges as they are there.

    An exchange that is missing is declared, if RabbitMQ lets this user do so.

    :param keeper: looks after what is subscribed to.
    :param shared: the topic that servers of several hosts would listen to; nobody calls it.
    """
    keep(transport, keeper, _Connection, shared)


class _Connection(Connection):
    def __init__(self, keeper: Keeper, shared: str, *arguments: Any, **options: Any) -> None:
        self._shared = shared
        super().__init__(keeper, *arguments, **options)

    def declare_topic_consumer(
        self, exchange_name: str, topic: str, *arguments: Any, **options: Any
    ) -> None:
        if topic != self._shared:
            super().declare_topic_consumer(exchange_name, topic, *arguments, **options)

    def declare_fanout_consumer(self, topic: str, callback: Callable[..., None]) -> None:
        """Declare nothing: nothing is sent to all hosts at once."""

    def declare_consumer(self, consumer: Any) -> Any:
        consumer.exchange = _Existing(**consumer.exchange.as_dict())
        consumer._declare_fallback_nondurable = partial(_use_as_it_is, consumer)
        return super().declare_consumer(consumer)

    def _publish(self, exchange: Any, *arguments: Any, **options: Any) -> None:
        super()._publish(_Existing(**exchange.as_dict()), *arguments, **options)


class _Existing(Exchange):  # type: ignore[misc]
    """An exchange that is declared only if it is missing."""

    def declare(
        self, nowait: bool = False, passive: bool | None = None, channel: Any = None
    ) -> None:
        if not self._can_declare():
            return
        # A channel of its own: RabbitMQ closes one on which something was missing.
        look = (channel or self.channel).connection.channel()
        try:
            look.exchange_declare(self.name, self.type, passive=True)
        except amqp.NotFound:
            self._make(nowait, channel)
        finally:
            look.close()

    def _make(self, nowait: bool, channel: Any) -> None:
        try:
            super().declare(nowait=nowait, channel=channel)
        except amqp.AccessRefused:
            raise _Missing(
                f"there is no exchange '{self.name}', and Kongming does not declare the exchange "
                "of another service"
            ) from None


class _Missing(amqp.ChannelError):  # type: ignore[misc]
    """An exchange that others make is not there; `amqp.NotFound` has the driver delete queues."""

    code = 404


def _use_as_it_is(consumer: Any, error: Exception, connection: Any, _arguments: object) -> None:
    """Listen to a queue that is there and not durable, although it is to be."""
    if not consumer.durable:
        raise error
    consumer.durable = False
    consumer.declare(connection)
