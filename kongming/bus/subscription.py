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

"""A subscription that comes about as soon as the broker is there."""

from __future__ import annotations

from collections.abc import Callable
import logging
import threading
from typing import Any

from kongming.backoff import Backoff
from kongming.bus.driver_log import DriverLog

LOG = logging.getLogger(__name__)

_RETRY_MAX = 30.0


class Subscription:
    """Subscribes, in a thread of its own, until it has succeeded.

    :param name: of the thread.
    :param subscribe: makes and starts a server of oslo.messaging's; raises
        whatever it may.
    :param on_undecodable: called with the reason for each message that the
        driver could not decode.
    :param on_listening: called once the subscription has come about.
    """

    def __init__(
        self,
        name: str,
        subscribe: Callable[[], Any],
        *,
        on_undecodable: Callable[[str], None],
        on_listening: Callable[[], None],
    ) -> None:
        self._name = name
        self._subscribe = subscribe
        self._on_listening = on_listening
        self.stopping = threading.Event()
        self._driver_log = DriverLog(on_undecodable)
        self._server: Any = None
        self._thread = threading.Thread(target=self._listen, name=name, daemon=True)

    @property
    def connected(self) -> bool:
        """Tell whether the broker lets us listen, as far as is known."""
        subscribed = self._server is not None and not self.stopping.is_set()
        return subscribed and not self._driver_log.away

    def start(self) -> None:
        """Begin; returns at once."""
        self._driver_log.install()
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Take no more messages and finish what is at hand.

        A broker that is away is not waited for longer than ``timeout``
        seconds: what it was not told it has kept.
        """
        self.stopping.set()
        stopper = threading.Thread(target=self._stop, name=f"{self._name}-stop", daemon=True)
        stopper.start()
        stopper.join(timeout)
        self._driver_log.remove()

    def _listen(self) -> None:
        backoff = Backoff(_RETRY_MAX)
        while not self.stopping.is_set():
            error = self._try_to_subscribe()
            if error is None:
                self._driver_log.connected()
                self._on_listening()
                return
            if backoff.first:
                LOG.error(
                    "RabbitMQ does not let us listen: %s%s; trying again", error, _hint(error)
                )
            self.stopping.wait(backoff.next())

    def _try_to_subscribe(self) -> Exception | None:
        try:
            self._server = self._subscribe()
        except Exception as error:  # noqa: BLE001
            # The driver lets through whatever the AMQP library raises.
            return error
        return None

    def _stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server.wait()


def _hint(error: Exception) -> str:
    if "PRECONDITION_FAILED" in str(error):
        return (
            " ([oslo_messaging_rabbit] amqp_durable_queues and rabbit_quorum_queue must be as in "
            "nova.conf; a queue that was declared otherwise must be deleted first)"
        )
    if "ACCESS_REFUSED" in str(error):
        return " (check user, password and vhost in transport_url, and the user's permissions)"
    return ""
