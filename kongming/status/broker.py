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

"""Check whether RabbitMQ is available to this service, and whether its peers use it there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import contextlib
from functools import partial
import ssl
from typing import Any
import uuid

import amqp
from oslo_config import cfg
import oslo_messaging
from oslo_upgradecheck.upgradecheck import Result
from oslo_utils import netutils

from kongming import exception
from kongming.allocation import host_name
from kongming.bus.queue_kind import QUORUM, QueueKind
from kongming.bus.reasons import explain
from kongming.bus.tls import unreadable
from kongming.bus.url import RABBIT, open_transport, parse
from kongming.conf.notification_handler import topics
from kongming.configuration import of_nova
from kongming.rpc.bus import CONDUCTOR, EXCHANGE, EXECUTOR
from kongming.status.finding import bad, doubtful, good

Check = Callable[[Any, Any], Result]

_TIMEOUT_S = 8.0
#: The option for Nova's notifications; without it [DEFAULT] transport_url is used.
OPTION = "[oslo_messaging_notifications] transport_url"
_CALLS_OPTION = "[DEFAULT] transport_url"


def check_notifications(conf: cfg.ConfigOpts) -> Iterator[Result]:
    """Try each host of the transport URL for notifications, and check Nova's exchange."""
    missing = (
        "Nova has never published to this virtual host; check that it is that of nova.conf's "
        "transport_url, and that [notification_handler] exchange is Nova's control_exchange"
    )
    own = conf.notification_handler
    names = [own.pool] if own.pool else [f"{topic}.info" for topic in topics(conf)]
    checks = [partial(_exchange, own.exchange, missing)]
    checks += [partial(_queue, name, QueueKind.of_messages) for name in names]
    yield from _check(conf, OPTION, checks)


def check_calls(conf: cfg.ConfigOpts, *, of_host: bool) -> Iterator[Result]:
    """Try each host of the transport URL for calls, and check Kongming's exchange and queues.

    :param of_host: whether to check those of this compute host, instead of a controller's.
    """
    missing = (
        "no conductor and no executor has ever connected to this virtual host; start "
        "kongming-conductor, and check that controllers and compute hosts have the same one"
    )
    queue, reply = str(CONDUCTOR.topic), f"reply_{uuid.uuid4().hex}"
    if of_host:
        name = host_name.in_queues(host_name.of(conf))
        queue, reply = f"{EXECUTOR.topic}.{name}", f"reply_{name}:{uuid.uuid4().hex}"
    checks = [
        partial(_exchange, EXCHANGE, missing),
        partial(_queue, queue, QueueKind.of_messages),
        partial(_queue, reply, QueueKind.of_replies),
    ]
    yield from _check(conf, _CALLS_OPTION, checks)


def parse_url(conf: cfg.ConfigOpts, option: str = OPTION) -> oslo_messaging.TransportURL | None:
    """Return the transport URL as the service would use it; None if it can't be used."""
    try:
        # Registers the driver's options, too.
        _transport(conf, option)
        calls = option == _CALLS_OPTION
        own = None if calls else conf.oslo_messaging_notifications.transport_url
        return parse(option, own or conf.transport_url)
    except exception.ConfigInvalid:
        return None


def _transport(conf: cfg.ConfigOpts, option: str) -> Any:
    """Return the transport as the service opens it.

    :raises ConfigInvalid: if its driver can't be used.
    """
    if option == _CALLS_OPTION:
        return open_transport(oslo_messaging.get_rpc_transport, conf, option, QUORUM)
    kinds = _queues_of_nova(conf)
    return open_transport(oslo_messaging.get_notification_transport, conf, option, kinds)


def _queues_of_nova(conf: cfg.ConfigOpts) -> dict[str, bool]:
    try:
        return of_nova.queues(conf.guard.nova_config_file)
    except exception.ConfigInvalid:
        # The check of Nova's notifications reports it.
        return {}


def _check(conf: cfg.ConfigOpts, option: str, checks: Sequence[Check]) -> Iterator[Result]:
    """Check the hosts of a transport URL.

    :param checks: called with an open connection, which each may close, and the driver's options.
    """
    url = parse_url(conf, option)
    if url is None:
        yield bad(
            f"{option} can't be used: write it as rabbit://user:password@host:5672/, with "
            "%-escapes in the password"
        )
    elif url.transport not in RABBIT:
        yield doubtful(f"not checked: {option} leads to {url.transport}, not to RabbitMQ")
    elif not url.hosts:
        yield bad(f"{option} names no host: set it to the same as on the other machines")
    else:
        # As the driver has them: the URL may have options, too.
        options = _transport(conf, option).conf.oslo_messaging_rabbit
        yield from _try_all(url, options, checks, option)


def _try_all(
    url: oslo_messaging.TransportURL,
    options: Any,
    checks: Sequence[Check],
    option: str,
) -> Iterator[Result]:
    timeout = _TIMEOUT_S / len(url.hosts)
    refused = []
    is_available = False
    for host in url.hosts:
        with contextlib.closing(_connection(options, url, host, timeout)) as connection:
            try:
                connection.connect()
            except Exception as error:  # noqa: BLE001
                # The AMQP library passes on all errors of the network.
                files = unreadable(options)
                why = f"is not tried: {files}" if files else _why(error, option)
                refused.append(f"{host.hostname}:{host.port} {why}")
                continue
            if not is_available:
                is_available = True
                yield good(f"{host.hostname}:{host.port} accepts the connection")
                yield from _open(connection, options, checks)
    for why in refused:
        yield doubtful(why) if is_available else bad(why)


def _open(connection: Any, options: Any, checks: Sequence[Check]) -> Iterator[Result]:
    """Make the checks of an open connection, until one fails."""
    for check in checks:
        try:
            yield check(connection, options)
        except (amqp.AMQPError, OSError) as error:
            yield bad(explain(error).words)
            return


def _connection(options: Any, url: oslo_messaging.TransportURL, host: Any, timeout: float) -> Any:
    # oslo.messaging and kombu would try more than once.
    return amqp.Connection(
        host=f"{netutils.escape_ipv6(host.hostname)}:{host.port or 5672}",
        userid=host.username or "guest",
        password=host.password or "guest",
        virtual_host=url.virtual_host or "/",
        login_method=options.rabbit_login_method,
        ssl=_tls(options, host.hostname) if options.ssl else False,
        connect_timeout=timeout,
        read_timeout=timeout,
        write_timeout=timeout,
    )


def _tls(options: Any, hostname: str) -> dict[str, Any] | bool:
    """Return the TLS parameters that oslo.messaging derives from its options."""
    tls: dict[str, Any] = {}
    if options.ssl_key_file:
        tls["keyfile"] = options.ssl_key_file
    if options.ssl_cert_file:
        tls["certfile"] = options.ssl_cert_file
    if options.ssl_ca_file:
        tls |= {
            "ca_certs": options.ssl_ca_file,
            "cert_reqs": ssl.CERT_REQUIRED,
            "server_hostname": hostname,
        }
    return tls or True


def _exchange(name: str, missing: str, connection: Any, _options: Any) -> Result:
    try:
        connection.channel().exchange_declare(name, "topic", passive=True)
    except amqp.NotFound:
        return doubtful(f"the exchange {name} does not exist: {missing}")
    return good(f"the exchange {name} exists")


def _queue(
    name: str, kind_of: Callable[[Any], QueueKind], connection: Any, options: Any
) -> Result:
    """Declare a queue as the service does, and delete it again if it is new.

    :raises AMQPError: if RabbitMQ refuses it.
    """
    kind = kind_of(options)
    is_new = not _exists(connection, name)
    channel = connection.channel()
    try:
        channel.queue_declare(
            name, durable=kind.durable, auto_delete=kind.auto_delete, arguments=kind.arguments
        )
    except amqp.PreconditionFailed as error:
        # An existing queue that is not durable is used in place of a durable one.
        found = doubtful if _is_used(kind, str(error)) else bad
        return found(explain(error).words)
    if is_new:
        # Meanwhile the service may have started.
        found = channel.queue_declare(name, passive=True)
        if not found.consumer_count and not found.message_count:
            channel.queue_delete(name)
    return good(f"it accepts a queue of the configured kind ({kind})")


def _is_used(kind: QueueKind, problem: str) -> bool:
    return str(kind) == "durable" and "inequivalent arg 'durable'" in problem


def _exists(connection: Any, queue: str) -> bool:
    try:
        connection.channel().queue_declare(queue, passive=True)
    except amqp.NotFound:
        return False
    return True


def _why(error: Exception, option: str) -> str:
    """Return what to do about a connection that failed."""
    if isinstance(error, ssl.SSLError):
        return (
            f"fails at TLS ({error.reason or type(error).__name__}): check ssl, ssl_ca_file and "
            "the port in [oslo_messaging_rabbit] and transport_url"
        )
    if isinstance(error, FileNotFoundError | PermissionError):
        return "is not tried: a TLS file of [oslo_messaging_rabbit] can't be read"
    if isinstance(error, amqp.AccessRefused):
        return f"refuses user or password: check both in {option}"
    if isinstance(error, amqp.NotAllowed):
        return f"refuses the virtual host: check it in {option}, and the user's permissions"
    if isinstance(error, TimeoutError):
        return "does not respond in time: check host and port, firewalls, and TLS on both sides"
    reason = getattr(error, "strerror", None) or type(error).__name__
    return f"can't be reached ({reason}): check that RabbitMQ runs, its host and port"
