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

"""The keeper of a subscription: it declares the exchange, queue and binding again if one is lost.

A consumer is not notified if its queue is no longer bound: it stays connected, and receives
nothing. So all is declared and bound again now and then, which changes nothing that exists.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
import threading
import time
from typing import Any

import amqp
from kombu.messaging import Producer
from oslo_messaging import TransportOptions
from oslo_messaging._drivers import impl_rabbit

from kongming.bus.reasons import Reason, explain, not_acknowledged
from kongming.bus.tls import unreadable

#: The seconds between two declarations of a subscription.
CHECK_S = 30.0


class Keeper:
    """The exchange and queue of a subscription at RabbitMQ, and losses of them.

    The driver's thread declares them, and the subscription's thread reads the losses.

    :ivar unreadable: returns which files of TLS can't be read.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._had: set[str] = set()
        self._missing: set[str] = set()
        self._lost: dict[str, None] = {}
        self._refusal: Reason | None = None
        self.unreadable: Callable[[], str] = lambda: ""

    @property
    def refusal(self) -> Reason | None:
        """Why the last declaration failed; None if it succeeded."""
        return self._refusal

    def take_lost(self) -> tuple[str, ...]:
        """Return what was lost and declared again since the last call."""
        with self._lock:
            lost, self._lost = (*self._lost,), {}
        return lost

    def declare(self, consumer: Any, channel: Any, declare: Callable[[], None]) -> bool:
        """Declare and bind the exchange and queue of a consumer.

        :param channel: a channel of its connection.
        :returns: whether the queue had a consumer at RabbitMQ.
        """
        if not isinstance(channel, amqp.Channel):
            # Other drivers lose nothing.
            declare()
            return True
        exchange = _passive(channel, "exchange_declare", consumer.exchange_name, consumer.type)
        queue = _passive(channel, "queue_declare", consumer.queue_name)
        found = {
            f"exchange {consumer.exchange_name}": exchange is not None,
            f"queue {consumer.queue_name}": queue is not None,
        }
        # If the declaration fails, a part may exist the next time.
        self._missing |= {name for name, is_there in found.items() if not is_there}
        declare()
        with self._lock:
            lost = [name for name in found if name in self._missing & self._had]
            self._lost |= dict.fromkeys(lost)
            self._had |= found.keys()
            self._missing -= found.keys()
        return queue is not None and bool(queue.consumer_count)

    def set_refusal(self, reason: Reason | None) -> None:
        """Note why the declaration failed, or None if it succeeded."""
        self._refusal = reason


class Expiring(TransportOptions):  # type: ignore[misc]
    """The transport options of a message that expires after some seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class Connection(impl_rabbit.Connection):  # type: ignore[misc]
    """A connection of the driver that keeps its consumers declared."""

    def __init__(self, keeper: Keeper, *arguments: Any, **options: Any) -> None:
        self._keeper = keeper
        self._check_at = time.monotonic() + CHECK_S
        super().__init__(*arguments, **options)

    def declare_consumer(self, consumer: Any) -> Any:
        """Declare a consumer, now and after each loss of the connection."""
        if _is_kept(consumer):
            declare = consumer.declare
            consumer.declare = lambda connection: self._keeper.declare(
                consumer, connection.channel, partial(declare, connection)
            )
        return super().declare_consumer(consumer)

    def consume(self, timeout: float | None = None) -> None:
        """Wait for messages; check the consumers if that is due."""
        is_due = time.monotonic() >= self._check_at
        if is_due and self.connection.connected and not self._new_tags:
            self._check_at = time.monotonic() + CHECK_S
            if not self._check_consumers():
                # The driver replaces a lost connection, with its consumers.
                self.connection.collect()
        super().consume(timeout)

    def _check_consumers(self) -> bool:
        """Declare and bind all again; return whether all consumers still exist."""
        try:
            known = [self._redeclare(each) for each in self._consumers if _is_kept(each)]
        except amqp.ChannelError as error:
            if not_acknowledged(error) is not None:
                # RabbitMQ has closed the channel of the consumers.
                return False
            self._keeper.set_refusal(explain(error))
            return True
        except (amqp.AMQPError, OSError):
            # An error of the connection, which the driver notices, too.
            return False
        self._keeper.set_refusal(None)
        return all(known)

    def _redeclare(self, consumer: Any) -> bool:
        # On a separate channel: RabbitMQ closes it after a refusal.
        channel = self.channel.connection.channel()
        try:
            return self._keeper.declare(consumer, channel, consumer.queue(channel).declare)
        finally:
            channel.close()

    def _set_current_channel(self, new_channel: Any) -> None:
        is_another = new_channel != self.channel
        super()._set_current_channel(new_channel)
        if is_another and new_channel is not None:
            self._keeper.set_refusal(None)
            self._producer = _Producer(new_channel, on_return=self.on_return)

    def _publish(
        self,
        exchange: Any,
        msg: Any,
        routing_key: str | None = None,
        timeout: float | None = None,
        transport_options: TransportOptions | None = None,
    ) -> None:
        self._producer.expires_s = getattr(transport_options, "seconds", None)
        super()._publish(exchange, msg, routing_key, timeout, transport_options)


class _Producer(Producer):  # type: ignore[misc]
    """Sends messages with an expiration, if they have one.

    The driver sets it to the time to wait for an answer, and the socket's time-out with it.
    """

    expires_s: float | None = None

    def publish(self, body: Any, *, expiration: float | None = None, **options: Any) -> Any:
        """Send a message."""
        return super().publish(body, expiration=expiration or self.expires_s, **options)


def keep(transport: Any, keeper: Keeper, connection: Any = Connection, *more: Any) -> None:
    """Have a keeper keep the subscriptions of a transport declared.

    :param connection: the class of the connections.
    :param more: its arguments besides the keeper.
    """
    pool = getattr(transport._driver, "_connection_pool", None)
    if pool is not None:
        keeper.unreadable = lambda: unreadable(transport._driver.conf.oslo_messaging_rabbit)
        pool.connection_cls = partial(connection, keeper, *more)


def _is_kept(consumer: Any) -> bool:
    # Answers are sent to a queue by its name, and nothing is sent to all servers at once.
    return bool(consumer.type == "topic")


def _passive(channel: Any, method: str, *arguments: str) -> Any:
    """Return RabbitMQ's answer about something of this name; None if it does not exist."""
    probe = channel.connection.channel()
    try:
        return getattr(probe, method)(*arguments, passive=True) or True
    except amqp.NotFound:
        return None
    finally:
        probe.close()
