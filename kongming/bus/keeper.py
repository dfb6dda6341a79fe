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

"""The keeper of a subscription: its exchange, queue and binding are made anew if they are lost.

Nobody tells a consumer that its queue is bound to nothing any more: it stays connected, and hears
nothing for ever. So all is declared and bound again now and then, which changes nothing where it
is as it should be.
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

#: Each so many seconds a subscription is declared and bound again.
CHECK_S = 30.0


class Keeper:
    """Knows what a subscription has had at RabbitMQ, and what of it was lost.

    The driver's thread tells it, that of the subscription asks it.

    :ivar unreadable: returns which of the files that TLS needs can't be read.
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
        """Return why it could not be declared again when that was last tried; None if it could."""
        return self._refusal

    def take_lost(self) -> tuple[str, ...]:
        """Return what was lost, and has been made anew, since this was last called."""
        with self._lock:
            lost, self._lost = (*self._lost,), {}
        return lost

    def declare(self, consumer: Any, channel: Any, declare: Callable[[], None]) -> bool:
        """Declare and bind what a consumer of the driver's needs.

        :param channel: any one of its connection.
        :returns: whether RabbitMQ knew of any consumer of the queue.
        """
        if not isinstance(channel, amqp.Channel):
            # Another driver's: it loses nothing.
            declare()
            return True
        exchange = _passive(channel, "exchange_declare", consumer.exchange_name, consumer.type)
        queue = _passive(channel, "queue_declare", consumer.queue_name)
        found = {
            f"exchange {consumer.exchange_name}": exchange is not None,
            f"queue {consumer.queue_name}": queue is not None,
        }
        # If it can't be declared in one go, a part of it may be there the next time.
        self._missing |= {name for name, is_there in found.items() if not is_there}
        declare()
        with self._lock:
            lost = [name for name in found if name in self._missing & self._had]
            self._lost |= dict.fromkeys(lost)
            self._had |= found.keys()
            self._missing -= found.keys()
        return queue is not None and bool(queue.consumer_count)

    def refused(self, reason: Reason | None) -> None:
        """Note how declaring it again went."""
        self._refusal = reason


class Lasting(TransportOptions):  # type: ignore[misc]
    """How a message is sent that is of no use any more after some seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class Connection(impl_rabbit.Connection):  # type: ignore[misc]
    """A connection of the driver's whose consumers are kept."""

    def __init__(self, keeper: Keeper, *arguments: Any, **options: Any) -> None:
        self._keeper = keeper
        self._look_at = time.monotonic() + CHECK_S
        super().__init__(*arguments, **options)

    def declare_consumer(self, consumer: Any) -> Any:
        """Declare a consumer, now and whenever the connection was lost."""
        if _is_kept(consumer):
            declare = consumer.declare
            consumer.declare = lambda connection: self._keeper.declare(
                consumer, connection.channel, partial(declare, connection)
            )
        return super().declare_consumer(consumer)

    def consume(self, timeout: float | None = None) -> None:
        """Wait for messages; look after the consumers if that is due."""
        is_due = time.monotonic() >= self._look_at
        if is_due and self.connection.connected and not self._new_tags:
            self._look_at = time.monotonic() + CHECK_S
            if not self._look_after():
                # The driver makes a lost connection anew, with its consumers.
                self.connection.collect()
        super().consume(timeout)

    def _look_after(self) -> bool:
        """Declare and bind all again; return whether all consumers are still there."""
        try:
            known = [self._renew(each) for each in self._consumers if _is_kept(each)]
        except amqp.ChannelError as error:
            if not_acknowledged(error) is not None:
                # RabbitMQ has closed the channel of the consumers.
                return False
            self._keeper.refused(explain(error))
            return True
        except (amqp.AMQPError, OSError):
            # The connection itself: the driver finds it out, too.
            return False
        self._keeper.refused(None)
        return all(known)

    def _renew(self, consumer: Any) -> bool:
        # A channel of its own: RabbitMQ closes one on which something was refused.
        channel = self.channel.connection.channel()
        try:
            return self._keeper.declare(consumer, channel, consumer.queue(channel).declare)
        finally:
            channel.close()

    def _set_current_channel(self, new_channel: Any) -> None:
        is_another = new_channel != self.channel
        super()._set_current_channel(new_channel)
        if is_another and new_channel is not None:
            self._keeper.refused(None)
            self._producer = _Producer(new_channel, on_return=self.on_return)

    def _publish(
        self,
        exchange: Any,
        msg: Any,
        routing_key: str | None = None,
        timeout: float | None = None,
        transport_options: TransportOptions | None = None,
    ) -> None:
        self._producer.lasts = getattr(transport_options, "seconds", None)
        super()._publish(exchange, msg, routing_key, timeout, transport_options)


class _Producer(Producer):  # type: ignore[misc]
    """Sends messages, each with an end, if it has one.

    The driver sets it to the seconds for which an answer is waited for, and the socket's time-out
    with it.
    """

    lasts: float | None = None

    def publish(self, body: Any, *, expiration: float | None = None, **options: Any) -> Any:
        """Send a message."""
        return super().publish(body, expiration=expiration or self.lasts, **options)


def keep(transport: Any, keeper: Keeper, connection: Any = Connection, *more: Any) -> None:
    """Have a keeper look after what a transport subscribes to.

    :param connection: the class of the connections; ``more`` is what it takes besides the keeper.
    """
    pool = getattr(transport._driver, "_connection_pool", None)
    if pool is not None:
        keeper.unreadable = lambda: unreadable(transport._driver.conf.oslo_messaging_rabbit)
        pool.connection_cls = partial(connection, keeper, *more)


def _is_kept(consumer: Any) -> bool:
    # Answers come by a queue's name, and nothing is sent to all at once.
    return bool(consumer.type == "topic")


def _passive(channel: Any, method: str, *arguments: str) -> Any:
    """Return what RabbitMQ has of this name; None if it has nothing."""
    look = channel.connection.channel()
    try:
        return getattr(look, method)(*arguments, passive=True) or True
    except amqp.NotFound:
        return None
    finally:
        look.close()
