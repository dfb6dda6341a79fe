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

"""The subscription of this host to Nova's notifications, by oslo.messaging.

A message is acknowledged when it was handled. While the store is unavailable the subscription
ends, as RabbitMQ may drop messages that are requeued again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import logging
import threading
from typing import Any

from oslo_config import cfg
import oslo_messaging
from oslo_messaging import dispatcher
from oslo_messaging.notify import listener

from kongming import exception
from kongming.bus import driver, host_connection
from kongming.bus.hold import Hold
from kongming.bus.keeper import Keeper
from kongming.bus.subscription import Subscription
from kongming.bus.url import open_transport
from kongming.conf.notification_handler import topics
from kongming.configuration import of_nova

LOG = logging.getLogger(__name__)

# The delays between attempts to store an event, before all events have to wait.
_PAUSES_S = (1.0, 2.0)


class Listener:
    """A subscription to Nova's notifications.

    :param handle: called with each message, one at a time, in their order.
    :param on_malformed: called with the reason for each undecodable message.
    :param on_listening: called when the subscription is established.
    :param on_missed: called when events may have been missed; returns how they are recovered.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        *,
        handle: Callable[[Mapping[str, Any]], None],
        on_malformed: Callable[[str], None],
        on_listening: Callable[[], None],
        on_missed: Callable[[], str],
    ) -> None:
        """Read the options.

        :raises ConfigInvalid: if the driver of the transport URL can't be used, or nova.conf can't
            be read.
        """
        self._transport = open_transport(
            oslo_messaging.get_notification_transport,
            conf,
            "[oslo_messaging_notifications] transport_url",
            of_nova.queues(conf.guard.nova_config_file),
        )
        keeper, hold = Keeper(), Hold()
        host_connection.restrict(self._transport, keeper)
        options = conf.notification_handler
        self._targets = [
            oslo_messaging.Target(exchange=options.exchange, topic=topic) for topic in topics(conf)
        ]
        self._pool = options.pool or None
        self._subscription = Subscription(
            "listener",
            self._subscribe,
            on_undecodable=on_malformed,
            on_listening=on_listening,
            on_missed=on_missed,
            keeper=keeper,
            hold=hold,
        )
        self._dispatcher = _Dispatcher(handle, on_malformed, hold, self._subscription.stopping)

    @property
    def connected(self) -> bool:
        """Whether RabbitMQ delivers messages, as far as is known."""
        return self._subscription.connected

    @property
    def held_up(self) -> bool:
        """Whether events wait in their queue because one can't be stored."""
        return self._dispatcher.held_up

    def start(self) -> None:
        """Start to subscribe, in a thread of its own."""
        self._subscription.start()

    def stop(self, timeout: float) -> None:
        """Stop after the current message, waiting at most ``timeout`` seconds for RabbitMQ."""
        self._subscription.stop(timeout)

    def _subscribe(self) -> Any:
        server = listener.NotificationServer(
            self._transport, self._targets, self._dispatcher, allow_requeue=True, pool=self._pool
        )
        # More threads would change the order.
        server.start(override_pool_size=1)
        # Handling one twice does no harm.
        driver.accept_redelivered(server)
        return server


class _Dispatcher(dispatcher.DispatcherBase):  # type: ignore[misc]
    """Passes each message to the handler, and survives all its errors."""

    supported_priorities = ("info",)

    def __init__(
        self,
        handle: Callable[[Mapping[str, Any]], None],
        on_malformed: Callable[[str], None],
        hold: Hold,
        stopping: threading.Event,
    ) -> None:
        self._handle = handle
        self._on_malformed = on_malformed
        self._hold = hold
        self._stopping = stopping
        self.held_up = False

    def dispatch(self, incoming: Any) -> str:
        """Handle a message; if it can't be stored, neither it nor a later one is acknowledged."""
        if not self._hold.is_on:
            for pause in (*_PAUSES_S, None):
                if self._is_handled(incoming.message):
                    return str(oslo_messaging.NotificationResult.HANDLED)
                if pause is None or self._stopping.wait(pause):
                    break
            # Retried until it can be stored; handling it twice does no harm.
            self._hold.begin(lambda: self._is_handled(incoming.message))
        self._hold.wait()
        return str(oslo_messaging.NotificationResult.REQUEUE)

    def _is_handled(self, message: Mapping[str, Any]) -> bool:
        """Handle a message; return whether that worked, and log once why not."""
        try:
            self._handle(message)
        except exception.StoreUnavailable as error:
            if error.outage.should_log():
                LOG.error("Events wait in their queue: %s", error)
            self.held_up = True
            return False
        except Exception as error:
            # A message that leads to a fault must not be delivered again and again.
            LOG.exception("A fault of Kongming in handling a notification, which is ignored")
            self._on_malformed(f"it led to a fault of Kongming ({type(error).__name__})")
        self.held_up = False
        return True
