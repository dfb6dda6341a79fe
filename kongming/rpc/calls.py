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

"""Those who can be called, and what goes wrong with a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
import functools
import importlib
import logging
import threading
import time
from typing import Any, TypeVar

from oslo_config import cfg
import oslo_messaging

from kongming import exception
from kongming.bus.subscription import Subscription

LOG = logging.getLogger(__name__)

EXCHANGE = "kongming"
# What a connection takes besides the answer.
_OPEN_S = 2.0
_CLIENT_GROUPS = ("metrics", "tracing")
CONDUCTOR = oslo_messaging.Target(topic="kongming-conductor", version="1.0")
EXECUTOR = oslo_messaging.Target(topic="kongming-executor", version="1.0")

_Method = TypeVar("_Method", bound=Callable[..., Any])


def get_transport(conf: cfg.ConfigOpts) -> Any:
    """Give the transport that calls take.

    :raises ConfigInvalid: if ``transport_url`` can't be used.
    """
    oslo_messaging.set_transport_defaults(EXCHANGE)
    for group in _CLIENT_GROUPS:
        _register(conf, group)
    try:
        return oslo_messaging.get_rpc_transport(conf)
    except (oslo_messaging.MessagingException, ValueError) as error:
        raise exception.ConfigInvalid(f"[DEFAULT] transport_url: {error}") from error


def _register(conf: cfg.ConfigOpts, group: str) -> None:
    """Register options that oslo.messaging registers on the global configuration only."""
    name = f"oslo_messaging_{group}"
    try:
        module = importlib.import_module(f"oslo_messaging._{group}.client")
    except ModuleNotFoundError:
        # Older ones do not have it, nor need it.
        return
    conf.register_opts(getattr(module, name), group=name)


def subscription(
    transport: Any,
    target: Any,
    host: str,
    endpoints: Sequence[object],
    on_listening: Callable[[], None],
) -> Subscription:
    """Give what takes the calls to a target.

    :param host: under which this server can be called by itself.
    """
    here = oslo_messaging.Target(topic=target.topic, server=host)

    def subscribe() -> Any:
        server = oslo_messaging.get_rpc_server(transport, here, endpoints)
        server.start()
        return server

    return Subscription(
        target.topic,
        subscribe,
        on_undecodable=lambda why: LOG.warning("A call can't be understood: %s; left out", why),
        on_listening=on_listening,
    )


def answers(method: _Method) -> _Method:
    """Have a method answer with our error instead of raising it."""

    @functools.wraps(method)
    def answering(*arguments: Any, **named: Any) -> Any:
        try:
            return method(*arguments, **named)
        except exception.KongmingError as error:
            return {"error": {"reason": error.reason, "message": str(error)}}

    return answering  # type: ignore[return-value]


class Caller:
    """Calls the servers of one target.

    :param silent: what is raised if none answers.
    :param timeout: gives the seconds to wait for an answer.
    """

    def __init__(
        self,
        transport: Any,
        target: Any,
        silent: type[exception.Silent],
        timeout: Callable[[], float],
    ) -> None:
        # Once more, as the connection may be an old one; then whoever calls tries again by itself.
        self._client = oslo_messaging.get_rpc_client(transport, target, retry=1)
        self._topic = target.topic
        self._silent = silent
        self._timeout = timeout
        self._lock = threading.Lock()
        self._opened = False
        self._first: _InThread | None = None

    def cast(self, method: str, host: str | None = None, **arguments: Any) -> None:
        """Send without waiting for anything to come of it.

        :raises Silent: if it can't be sent.
        """
        self._try(lambda: self._to(host).cast({}, method, **arguments), host)

    def call(self, method: str, host: str | None = None, **arguments: Any) -> dict[str, Any]:
        """Send, and give the answer.

        :raises Silent: if it can't be sent, or no answer comes, or none that is
            an answer.
        """
        answer = self._try(lambda: self._open_and_call(host, method, arguments), host)
        if not isinstance(answer, dict):
            raise self._silent(f"{self._name(host)} answers with a {type(answer).__name__}")
        if "error" in answer:
            raise self._silent(f"{self._name(host)} can't: {answer['error'].get('message')}")
        return answer

    def _open_and_call(self, host: str | None, method: str, arguments: Mapping[str, Any]) -> Any:
        """Call; the driver waits for ever for a broker that is away at the first call."""

        def send() -> Any:
            answer = self._to(host).call({}, method, **arguments)
            self._opened = True
            return answer

        if self._opened:
            return send()
        patience = self._timeout() + _OPEN_S
        with self._lock:
            first = self._first
            if first is None or not first.thread.is_alive():
                call = self._first = _InThread(send)
            elif time.monotonic() - first.began > patience:
                # One that waits is enough; it finds out when the broker is back.
                raise oslo_messaging.MessagingTimeout
            else:
                call = _InThread(send)
        return call.result(patience)

    def _to(self, host: str | None) -> Any:
        return self._client.prepare(server=host, timeout=self._timeout())

    def _try(self, send: Callable[[], Any], host: str | None) -> Any:
        try:
            return send()
        except oslo_messaging.MessagingTimeout as error:
            raise self._silent(
                f"{self._name(host)} does not answer within {self._timeout():g} s: is it running, "
                "and does it use the same transport_url?"
            ) from error
        except Exception as error:
            # The driver lets through whatever the AMQP library raises; and what
            # a fault over there led to comes as an error, too.
            raise self._silent(
                f"{self._name(host)} can't be asked: {type(error).__name__}: {_short(error)}"
            ) from error

    def _name(self, host: str | None) -> str:
        return self._topic if host is None else f"{self._topic} of host {host}"


class _InThread:
    """Something that may never end, done where nobody waits for it but as long as they want."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.began = time.monotonic()
        self._work = work
        self._done: Future[Any] = Future()
        self.thread = threading.Thread(target=self._run, name="first-call", daemon=True)
        self.thread.start()

    def result(self, timeout: float) -> Any:
        try:
            return self._done.result(timeout)
        except TimeoutError:
            raise oslo_messaging.MessagingTimeout from None

    def _run(self) -> None:
        try:
            self._done.set_result(self._work())
        except BaseException as error:  # noqa: BLE001
            self._done.set_exception(error)


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else ""
