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

"""A subscription that comes about as soon as RabbitMQ lets us listen, and as often as need be."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
from dataclasses import replace
import logging
import threading
import time
from typing import Any

from kongming.bus import driver
from kongming.bus.driver_log import DriverLog
from kongming.bus.hold import Hold
from kongming.bus.keeper import Keeper
from kongming.bus.reasons import TLS_FILE, UNREACHABLE, Reason, explain
from kongming.runtime.availability import Availability
from kongming.runtime.backoff import Backoff

LOG = logging.getLogger(__name__)

_RETRY_MAX_S = 30.0
_LOOK_S, _TICK_S = 0.5, 0.05
# What the driver mends by itself within seconds is no outage.
_PATIENCE_S = 2.0
# What it does not within so many once RabbitMQ lets us in, it never does.
_DEAF_S = 15.0
_LOST = (
    "RabbitMQ has lost what this service subscribes to (%s): declared and bound again. Messages "
    "sent in between are lost, so %s"
)
_DEAF = Reason("deaf", "it accepts the connection, but not the consumers", of_connection=False)


class Subscription:
    """Subscribes, in a thread of its own, and sees that it stays so.

    :param name: of the thread.
    :param subscribe: makes and starts a server of oslo.messaging's; raises
        whatever it may.
    :param on_undecodable: called with the reason for each message that the
        driver could not decode.
    :param on_listening: called each time that the subscription has come about.
    :param on_missed: called when messages may have been missed: sees to it that nothing stays so,
        and returns how, as a clause.
    :param keeper: of the transport that the server is made of.
    :param hold: what messages may have to wait for.
    """

    def __init__(
        self,
        name: str,
        subscribe: Callable[[], Any],
        *,
        on_undecodable: Callable[[str], None],
        on_listening: Callable[[], None],
        on_missed: Callable[[], str],
        keeper: Keeper,
        hold: Hold | None = None,
    ) -> None:
        self._name = name
        self._subscribe = subscribe
        self._on_listening = on_listening
        self._on_missed = on_missed
        self._keeper = keeper
        self._hold = hold or Hold()
        self._was_held = False
        self.stopping = threading.Event()
        self._driver_log = DriverLog(on_undecodable, self._trouble)
        self._availability = Availability("RabbitMQ", LOG)
        self._refusal: Reason | None = None
        self._server: Any = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def connected(self) -> bool:
        """Tell whether RabbitMQ lets us listen, as far as is known."""
        server = self._server
        if server is None or self.stopping.is_set():
            # While the messages wait for something else RabbitMQ is not to blame.
            return self._hold.is_on and not self.stopping.is_set()
        return driver.is_listening(server) and self._keeper.refusal is None

    def start(self) -> None:
        """Begin; returns at once."""
        self._driver_log.install()
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Take no more messages and finish what is at hand.

        A RabbitMQ that is unavailable is not waited for longer than
        ``timeout`` seconds: what it was not told it has kept.
        """
        self.stopping.set()
        self._end_server().join(timeout)
        self._driver_log.remove()

    def _run(self) -> None:
        backoff = Backoff(_RETRY_MAX_S)
        while not self.stopping.is_set():
            self._was_held |= self._hold.is_on
            if self._hold.end():
                self._listen(backoff)
            self.stopping.wait(backoff.next())

    def _listen(self, backoff: Backoff) -> None:
        """Subscribe, and see that it stays so; return once it does not."""
        error = self._try_to_subscribe()
        if error is None:
            self._watch(backoff)
            self._give_up()
        else:
            self._tell_lost(explain(error))

    def _try_to_subscribe(self) -> Exception | None:
        try:
            self._server = self._subscribe()
        except Exception as error:  # noqa: BLE001
            # The driver lets through whatever the AMQP library raises.
            return error
        # What it met on the way is over.
        self._refusal = None
        return None

    def _watch(self, backoff: Backoff) -> None:
        """See whether we listen; return once RabbitMQ refuses it on a connection that stands.

        A connection that is lost the driver makes again by itself, and waits
        longer and longer; what is refused it would ask for each second.
        """
        while self._comes_to_listen():
            self._availability.restored()
            self._on_listening()
            self._refusal = None
            backoff.reset()
            if self._was_held:
                self._was_held = False
                LOG.info("Messages are accepted again, and %s", self._on_missed())
            while driver.is_listening(self._server):
                self._see_what_was_lost()
                if self._hold.is_on or self.stopping.wait(_LOOK_S):
                    return

    def _see_what_was_lost(self) -> None:
        """Tell what keeps the subscription from being declared again, and what that has mended."""
        refusal = self._keeper.refusal
        if refusal is not None:
            self._tell_lost(refusal)
            return
        self._availability.restored()
        lost = self._keeper.take_lost()
        if lost:
            LOG.warning(_LOST, ", ".join(lost), self._on_missed())

    def _comes_to_listen(self) -> bool:
        """Wait until we listen, and tell why we don't; return whether it came to that."""
        looks = Backoff(_RETRY_MAX_S)
        look_at = time.monotonic() + _PATIENCE_S
        deaf_at: float | None = None
        while not driver.is_listening(self._server):
            if self.stopping.wait(_TICK_S):
                return False
            if time.monotonic() < look_at:
                continue
            reason = driver.why_not(self._server) or self._refusal
            now = time.monotonic()
            look_at = now + looks.next()
            if reason is None:
                # It lets us in by now: the driver is to notice.
                looks.reset()
                deaf_at = deaf_at or now + _DEAF_S
                if now < deaf_at:
                    continue
                reason = _DEAF
            self._tell_lost(reason)
            if not reason.of_connection:
                return False
        return True

    def _tell_lost(self, reason: Reason) -> None:
        if reason.kind == TLS_FILE and (named := self._keeper.unreadable()):
            reason = replace(reason, words=named)
        if reason.kind == UNREACHABLE:
            problem = f"RabbitMQ is unavailable ({reason.words}); waiting for it"
            self._availability.lost(problem, reason.kind)
        else:
            problem = f"RabbitMQ rejects the subscription: {reason.words}; it will be retried"
            self._availability.lost(problem, reason.kind, logging.ERROR)

    def _trouble(self, error: BaseException) -> None:
        """Note what the driver is refused; before it has a connection, tell what it meets."""
        reason = explain(error)
        if not reason.of_connection:
            self._refusal = reason
        if self._server is None:
            self._tell_lost(reason)

    def _give_up(self) -> None:
        """End the server that can't listen; another one may not begin before."""
        ending = self._end_server()
        while ending.is_alive() and not self.stopping.is_set():
            ending.join(_LOOK_S)
        if not self.stopping.is_set():
            self._server = None

    def _end_server(self) -> threading.Thread:
        stopper = threading.Thread(target=self._stop, name=f"{self._name}-stop", daemon=True)
        stopper.start()
        return stopper

    def _stop(self) -> None:
        if self._server is None:
            return
        # The driver lets through whatever the AMQP library raises; what is over is over.
        with contextlib.suppress(Exception):
            self._server.stop()
            if self._hold.is_on:
                driver.cut(self._server)
            self._hold.let_go()
            self._server.wait()
