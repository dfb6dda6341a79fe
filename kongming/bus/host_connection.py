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

"""Connections of a compute host: they declare only the host's own queues at RabbitMQ.

A user of RabbitMQ may delete all that it may declare. A user that deletes an exchange of others
can declare another one in its place, which routes all messages to a queue of its own; a user that
deletes a shared queue can keep all others from listening. So a host's user has the permission
for neither, and oslo.messaging, which declares all that it uses, is kept from doing so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import amqp
from kombu.entity import Exchange

from kongming.bus.keeper import Connection, Keeper, keep


def restrict(transport: Any, keeper: Keeper, shared: str = "") -> None:
    """Have a transport declare only its own queues, and use existing exchanges unchanged.

    A missing exchange is declared, if this user has the permission.

    :param keeper: keeps the subscription declared.
    :param shared: the topic that servers of several hosts would share; it is not used.
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
        """Declare nothing: no message is sent to all hosts at once."""

    def declare_consumer(self, consumer: Any) -> Any:
        consumer.exchange = _Existing(**consumer.exchange.as_dict())
        consumer._declare_fallback_nondurable = partial(_use_unchanged, consumer)
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
        # On a separate channel: RabbitMQ closes it if the exchange is missing.
        probe = (channel or self.channel).connection.channel()
        try:
            probe.exchange_declare(self.name, self.type, passive=True)
        except amqp.NotFound:
            self._make(nowait, channel)
        finally:
            probe.close()

    def _make(self, nowait: bool, channel: Any) -> None:
        try:
            super().declare(nowait=nowait, channel=channel)
        except amqp.AccessRefused:
            raise _Missing(
                f"there is no exchange '{self.name}', and Kongming does not declare the exchange "
                "of another service"
            ) from None


class _Missing(amqp.ChannelError):  # type: ignore[misc]
    """An exchange of another service is missing.

    For amqp.NotFound the driver would delete queues.
    """

    code = 404


def _use_unchanged(consumer: Any, error: Exception, connection: Any, _arguments: object) -> None:
    """Use an existing queue that is not durable, although durable queues are configured."""
    if not consumer.durable:
        raise error
    consumer.durable = False
    consumer.declare(connection)
