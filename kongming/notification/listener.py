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

"""The bus: subscribes this host to Nova's notifications through oslo.messaging.

Acknowledged is what was handled; nothing else, and nothing twice over.
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
from kongming.backoff import Backoff
from kongming.bus import driver, own
from kongming.bus.subscription import Subscription
from kongming.bus.url import open_transport
from kongming.conf.notification_handler import topics

LOG = logging.getLogger(__name__)

_RETRY_MAX = 30.0


class Listener:
    """A subscription to Nova's notifications.

    :param handle: called with each message, one at a time, in their order.
    :param on_malformed: called with the reason for each undecodable message.
    :param on_listening: called once the subscription has come about.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        *,
        handle: Callable[[Mapping[str, Any]], None],
        on_malformed: Callable[[str], None],
        on_listening: Callable[[], None],
    ) -> None:
        """Read the options.

        :raises ConfigInvalid: if the driver of the transport URL can't be used.
        """
        self._transport = open_transport(
            oslo_messaging.get_notification_transport,
            conf,
            "[oslo_messaging_notifications] transport_url",
        )
        own.restrict(self._transport)
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
        )
        self._dispatcher = _Dispatcher(handle, on_malformed, self._subscription.stopping)

    @property
    def connected(self) -> bool:
        """Tell whether the broker lets us listen, as far as is known."""
        return self._subscription.connected

    @property
    def held_up(self) -> bool:
        """Tell whether events wait in their queue because one can't be kept."""
        return self._dispatcher.held_up

    def start(self) -> None:
        """Subscribe, in a thread of its own; returns at once."""
        self._subscription.start()

    def stop(self, timeout: float) -> None:
        """Take no more messages and finish the one at hand.

        A broker that is away is not waited for longer than ``timeout``
        seconds: what it was not told it has kept.
        """
        self._subscription.stop(timeout)

    def _subscribe(self) -> Any:
        server = listener.NotificationServer(
            self._transport, self._targets, self._dispatcher, allow_requeue=True, pool=self._pool
        )
        # One thread: order is kept only so.
        server.start(override_pool_size=1)
        # Handling one twice does no harm.
        driver.hand_over_repeated(server)
        return server


class _Dispatcher(dispatcher.DispatcherBase):  # type: ignore[misc]
    """Hands each message over, and is sure to survive it."""

    supported_priorities = ("info",)

    def __init__(
        self,
        handle: Callable[[Mapping[str, Any]], None],
        on_malformed: Callable[[str], None],
        stopping: threading.Event,
    ) -> None:
        self._handle = handle
        self._on_malformed = on_malformed
        self._stopping = stopping
        self.held_up = False

    def dispatch(self, incoming: Any) -> str:
        """Handle one message; until it can be kept it is not acknowledged."""
        backoff = Backoff(_RETRY_MAX)
        while (error := self._try_to_handle(incoming.message)) is not None:
            self.held_up = True
            if error.outage.is_news():
                LOG.error("Events wait in their queue: %s", error)
            if self._stopping.wait(backoff.next()):
                return str(oslo_messaging.NotificationResult.REQUEUE)
        self.held_up = False
        return str(oslo_messaging.NotificationResult.HANDLED)

    def _try_to_handle(self, message: Mapping[str, Any]) -> exception.StoreUnavailable | None:
        try:
            self._handle(message)
        except exception.StoreUnavailable as error:
            return error
        except Exception as error:
            # A message that we fail on must not come again and again.
            LOG.exception("A fault of Kongming")
            self._on_malformed(f"it led to a {type(error).__name__} in Kongming")
        return None
