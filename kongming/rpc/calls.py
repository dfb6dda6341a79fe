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

"""The caller's side of calls, and the errors of a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
import threading
from typing import Any, TypeVar

import oslo_messaging
from oslo_messaging import TransportOptions

from kongming import exception
from kongming.allocation.host_name import in_queues
from kongming.bus.keeper import Expiring
from kongming.bus.reasons import REJECTED, UNKNOWN, explain
from kongming.rpc.bus import Bus
from kongming.rpc.messages import Message
from kongming.rpc.signing import SIGNATURE, Signature
from kongming.runtime import threads
from kongming.runtime.cleaning import clean

# The time to open a connection, in addition to the time limit of the answer.
OPEN_S = 2.0
#: The lifetime of a hint in its queue. A receiver that was gone for longer pulls before it
#: accepts hints.
HINT_S = 30.0
_LENGTH_MAX = 500
# RabbitMQ reports at once if no queue is bound to the routing key of a call.
_MUST_ARRIVE = TransportOptions(at_least_once=True)

_Answer = TypeVar("_Answer", bound=Message)


class Caller:
    """A client of the servers of one target.

    :param unresponsive: the error to raise if none answers.
    :ivar timeout_s: how long to wait for an answer; may be replaced at any time.
    """

    def __init__(
        self,
        bus: Bus,
        target: Any,
        unresponsive: type[exception.Unresponsive],
        timeout_s: float,
    ) -> None:
        # One retry, because the connection may be stale; further ones are up to the caller.
        self._client = oslo_messaging.get_rpc_client(bus.transport, target, retry=1)
        self._bus = bus
        self._topic = target.topic
        self._unresponsive = unresponsive
        self.timeout_s = timeout_s
        self._lock = threading.Lock()
        self._stuck: Future[Any] | None = None

    def cast(self, method: str, message: Message, host: str | None = None) -> None:
        """Send a hint without an answer; RabbitMQ drops it after :data:`HINT_S`.

        It blocks while RabbitMQ accepts no messages, so only an outbox may call it.

        :raises Unresponsive: if it can't be sent.
        """
        arguments = message.to_json()
        context = _context(self._sign(host, method, arguments))
        hint = Expiring(HINT_S)
        self._try(lambda: self._to(host, hint).cast(context, method, **arguments), host)

    def call(
        self, method: str, message: Message, answer: type[_Answer], host: str | None = None
    ) -> _Answer:
        """Send a message and return the answer.

        :param answer: the type of the answer.
        :raises Unresponsive: if it can't be sent, or no valid answer comes.
        :raises MessageRefused: if the other side refuses it.
        """
        arguments = message.to_json()
        signature = self._sign(host, method, arguments)
        context = _context(signature)
        received = self._try(
            lambda: self._wait_for(
                lambda: self._to(host, _MUST_ARRIVE).call(context, method, **arguments)
            ),
            host,
        )
        try:
            found = self._read(signature, received, answer)
        except exception.MessageRefused as error:
            self._bus.refusals.note(self._name(host), method, error)
            raise self._unresponsive(
                f"the answer of {self._name(host)} can't be used: {error}"
            ) from error
        if isinstance(found, exception.KongmingError):
            raise found
        self._bus.refusals.note_left_out(self._name(host), method, found)
        return found

    def _sign(
        self, host: str | None, method: str, arguments: Mapping[str, Any]
    ) -> Signature | None:
        signer = self._bus.signer
        return None if signer is None else signer.sign(host, method, arguments)

    def _read(
        self, signature: Signature | None, received: Any, answer: type[_Answer]
    ) -> _Answer | exception.KongmingError:
        """Return the answer, which may be an error.

        :raises MessageRefused: if it is not authentic, or invalid.
        """
        if not isinstance(received, dict):
            raise exception.MessageInvalid(
                f"the answer is a {type(received).__name__}, not an object"
            )
        reason, message = _error(received)
        if self._bus.signer is not None and signature is not None:
            try:
                self._bus.signer.check_answer(signature, received)
            except exception.SignatureInvalid as unproven:
                more = f"; the answer is: {message}" if message else ""
                raise exception.SignatureInvalid(f"{unproven}{more}") from unproven
        if "error" not in received:
            return answer.from_json(received)
        for refusal in (exception.MessageInvalid, exception.SignatureInvalid):
            if reason == refusal.reason:
                return refusal(message)
        return self._unresponsive(f"{self._topic} reports an error: {message}")

    def _wait_for(self, call: Callable[[], Any]) -> Any:
        """Call, and wait at most the time limits of the answer and of a connection.

        The driver waits without limit for a first connection, and while RabbitMQ accepts no
        messages (its memory or disk alarm).

        :raises _Stuck: if it takes longer, and at once while an earlier call is stuck.
        """
        with self._lock:
            if self._stuck is not None and not self._stuck.done():
                # The one that waits finds out when RabbitMQ accepts messages again.
                raise _Stuck
        made = threads.start(call, "call")
        if made in wait([made], self.timeout_s + OPEN_S).done:
            return made.result()
        with self._lock:
            self._stuck = made
        raise _Stuck

    def _to(self, host: str | None, options: TransportOptions) -> Any:
        server = None if host is None else in_queues(host)
        return self._client.prepare(
            server=server, timeout=self.timeout_s, transport_options=options
        )

    def _try(self, send: Callable[[], Any], host: str | None) -> Any:
        try:
            return send()
        except _Stuck as error:
            raise self._unresponsive(
                f"{self._name(host)} can't be called: RabbitMQ can't be reached, or accepts no "
                "messages; check that it runs, and 'rabbitmqctl status' for a memory or disk alarm"
            ) from error
        except oslo_messaging.MessageUndeliverable as error:
            raise self._unresponsive(
                f"{self._name(host)} can't be called: it does not listen at RabbitMQ; is it "
                "running, and does it use the same transport_url?"
            ) from error
        except oslo_messaging.MessagingTimeout as error:
            raise self._unresponsive(
                f"{self._name(host)} did not answer within {self.timeout_s:g} s; is it running, "
                "and does it use the same transport_url?"
            ) from error
        except Exception as error:
            # The driver passes on any error of the AMQP library, and faults of the other side.
            failure = self._unresponsive(f"{self._name(host)} can't be called: {_why(error)}")
            failure.others_too = explain(error).kind != REJECTED
            raise failure from error

    def _name(self, host: str | None) -> str:
        return self._topic if host is None else f"{self._topic} on host {host}"


class _Stuck(Exception):
    """RabbitMQ accepts no messages."""


def _context(signature: Signature | None) -> dict[str, Any]:
    return {} if signature is None else {SIGNATURE: signature.to_json()}


def _error(received: Mapping[str, Any]) -> tuple[str, str]:
    """Return reason code and message of an error; empty if there is none."""
    error = received.get("error")
    if not isinstance(error, dict):
        return "", "" if error is None else "an error without a message"
    reason, message = error.get("reason"), error.get("message")
    return str(reason)[:_LENGTH_MAX], clean(str(message), _LENGTH_MAX)


def _why(error: Exception) -> str:
    reason = explain(error)
    return reason.words if reason.kind == UNKNOWN else f"RabbitMQ can't be used: {reason.words}"
