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

"""A subscription that is established as soon as RabbitMQ is available, and after each loss."""

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
_CHECK_S, _TICK_S = 0.5, 0.05
# Shorter interruptions, which the driver repairs by itself, are no outage.
_PATIENCE_S = 2.0
# If the driver does not listen so long after it could connect, it never will.
_NO_CONSUMERS_S = 15.0
_LOST = (
    "RabbitMQ has lost what this service subscribes to (%s): declared and bound again. Messages "
    "sent in between are lost, so %s"
)
_NO_CONSUMERS = Reason(
    "no_consumers", "it accepts the connection, but not the consumers", of_connection=False
)


class Subscription:
    """Subscribes in a thread of its own, and keeps the subscription.

    :param name: the name of the thread.
    :param subscribe: makes and starts a server of oslo.messaging; may raise any error.
    :param on_undecodable: called with the reason for each message that the driver could not
        decode.
    :param on_listening: called each time the subscription is established.
    :param on_missed: called when messages may have been missed: recovers them, and returns how,
        as a clause.
    :param keeper: the keeper of the server's transport.
    :param hold: makes messages wait.
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
        """Whether RabbitMQ delivers messages, as far as is known."""
        server = self._server
        if server is None or self.stopping.is_set():
            # A hold is not RabbitMQ's fault.
            return self._hold.is_on and not self.stopping.is_set()
        return driver.is_listening(server) and self._keeper.refusal is None

    def start(self) -> None:
        """Start to subscribe."""
        self._driver_log.install()
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Stop after the current messages, waiting at most ``timeout`` seconds for RabbitMQ.

        RabbitMQ keeps unacknowledged messages.
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
        """Subscribe, and return once the subscription has ended."""
        error = self._try_to_subscribe()
        if error is None:
            self._watch(backoff)
            self._give_up()
        else:
            self._report_lost(explain(error))

    def _try_to_subscribe(self) -> Exception | None:
        try:
            self._server = self._subscribe()
        except Exception as error:  # noqa: BLE001
            # The driver passes on any error of the AMQP library.
            return error
        # Earlier errors are over.
        self._refusal = None
        return None

    def _watch(self, backoff: Backoff) -> None:
        """Watch the subscription; return once RabbitMQ refuses it on an open connection.

        The driver replaces a lost connection by itself, with growing delays; a refused
        subscription it would retry each second.
        """
        while self._wait_listening():
            self._availability.restored()
            self._on_listening()
            self._refusal = None
            backoff.reset()
            if self._was_held:
                self._was_held = False
                LOG.info("Messages are accepted again, and %s", self._on_missed())
            while driver.is_listening(self._server):
                self._check_lost()
                if self._hold.is_on or self.stopping.wait(_CHECK_S):
                    return

    def _check_lost(self) -> None:
        """Report why the subscription can't be declared again, or what was declared again."""
        refusal = self._keeper.refusal
        if refusal is not None:
            self._report_lost(refusal)
            return
        self._availability.restored()
        lost = self._keeper.take_lost()
        if lost:
            LOG.warning(_LOST, ", ".join(lost), self._on_missed())

    def _wait_listening(self) -> bool:
        """Wait until messages are delivered, reporting problems; return whether they are."""
        checks = Backoff(_RETRY_MAX_S)
        check_at = time.monotonic() + _PATIENCE_S
        give_up_at: float | None = None
        while not driver.is_listening(self._server):
            if self.stopping.wait(_TICK_S):
                return False
            if time.monotonic() < check_at:
                continue
            reason = driver.why_not(self._server) or self._refusal
            now = time.monotonic()
            check_at = now + checks.next()
            if reason is None:
                # RabbitMQ accepts connections again; the driver should notice.
                checks.reset()
                give_up_at = give_up_at or now + _NO_CONSUMERS_S
                if now < give_up_at:
                    continue
                reason = _NO_CONSUMERS
            self._report_lost(reason)
            if not reason.of_connection:
                return False
        return True

    def _report_lost(self, reason: Reason) -> None:
        if reason.kind == TLS_FILE and (named := self._keeper.unreadable()):
            reason = replace(reason, words=named)
        if reason.kind == UNREACHABLE:
            problem = f"RabbitMQ is unavailable ({reason.words}); waiting for it"
            self._availability.lost(problem, reason.kind)
        else:
            problem = f"RabbitMQ rejects the subscription: {reason.words}; it will be retried"
            self._availability.lost(problem, reason.kind, logging.ERROR)

    def _trouble(self, error: BaseException) -> None:
        """Note a refusal to the driver; before it is connected, report its errors."""
        reason = explain(error)
        if not reason.of_connection:
            self._refusal = reason
        if self._server is None:
            self._report_lost(reason)

    def _give_up(self) -> None:
        """Stop the server that can't listen; a new one may not start before."""
        ending = self._end_server()
        while ending.is_alive() and not self.stopping.is_set():
            ending.join(_CHECK_S)
        if not self.stopping.is_set():
            self._server = None

    def _end_server(self) -> threading.Thread:
        stopper = threading.Thread(target=self._stop, name=f"{self._name}-stop", daemon=True)
        stopper.start()
        return stopper

    def _stop(self) -> None:
        if self._server is None:
            return
        # The driver passes on any error of the AMQP library; the server ends anyway.
        with contextlib.suppress(Exception):
            self._server.stop()
            if self._hold.is_on:
                driver.disconnect(self._server)
            self._hold.unsubscribed()
            self._server.wait()
