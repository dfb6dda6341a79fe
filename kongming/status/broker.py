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

"""Check whether RabbitMQ is available to this service, and whether Nova publishes there."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import ssl
from typing import Any

import amqp
from oslo_config import cfg
import oslo_messaging
from oslo_upgradecheck.upgradecheck import Result
from oslo_utils import netutils

from kongming import exception
from kongming.bus.tls import unreadable
from kongming.bus.url import RABBIT, open_transport, parse
from kongming.status.finding import bad, doubtful, good

_TIMEOUT_S = 8.0
#: The option for Nova's notifications; without it [DEFAULT] transport_url is used.
OPTION = "[oslo_messaging_notifications] transport_url"


def check(conf: cfg.ConfigOpts) -> Iterator[Result]:
    """Try each host of the transport URL, and check Nova's exchange."""
    url = parse_url(conf)
    if url is None:
        yield bad(
            f"{OPTION} can't be used: write it as rabbit://user:password@host:5672/, with "
            "%-escapes in the password"
        )
    elif url.transport not in RABBIT:
        yield doubtful(f"not checked: {OPTION} leads to {url.transport}, not to RabbitMQ")
    elif not url.hosts:
        yield bad(f"{OPTION} names no host: set it to that of nova.conf")
    else:
        yield from _try_all(conf, url)


def parse_url(conf: cfg.ConfigOpts) -> oslo_messaging.TransportURL | None:
    """Return the transport URL as the service would use it; None if it can't be used."""
    try:
        # Registers the driver's options, too.
        open_transport(oslo_messaging.get_notification_transport, conf, OPTION)
        named = conf.oslo_messaging_notifications.transport_url or conf.transport_url
        return parse(OPTION, named)
    except exception.ConfigInvalid:
        return None


def _try_all(conf: cfg.ConfigOpts, url: oslo_messaging.TransportURL) -> Iterator[Result]:
    timeout = _TIMEOUT_S / len(url.hosts)
    refused = []
    is_available = False
    for host in url.hosts:
        with contextlib.closing(_connection(conf, url, host, timeout)) as connection:
            try:
                connection.connect()
            except Exception as error:  # noqa: BLE001
                # The AMQP library passes on all errors of the network.
                files = unreadable(conf.oslo_messaging_rabbit)
                why = f"is not tried: {files}" if files else _why(error)
                refused.append(f"{host.hostname}:{host.port} {why}")
                continue
            if not is_available:
                is_available = True
                yield good(f"{host.hostname}:{host.port} accepts the connection")
                yield _exchange(conf, connection)
    for why in refused:
        yield doubtful(why) if is_available else bad(why)


def _connection(
    conf: cfg.ConfigOpts, url: oslo_messaging.TransportURL, host: Any, timeout: float
) -> Any:
    options = conf.oslo_messaging_rabbit
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


def _exchange(conf: cfg.ConfigOpts, connection: Any) -> Result:
    name = conf.notification_handler.exchange
    try:
        connection.channel().exchange_declare(name, "topic", passive=True)
    except amqp.NotFound:
        return doubtful(
            f"the exchange {name} does not exist: Nova has never published to this virtual host; "
            "check that it is that of nova.conf's transport_url, and that [notification_handler] "
            "exchange is Nova's control_exchange"
        )
    return good(f"the exchange {name} exists (see the check Queue limits for its queues)")


def _why(error: Exception) -> str:
    """Return what to do about a connection that failed."""
    if isinstance(error, ssl.SSLError):
        return (
            f"fails at TLS ({error.reason or type(error).__name__}): check ssl, ssl_ca_file and "
            "the port in [oslo_messaging_rabbit] and transport_url"
        )
    if isinstance(error, FileNotFoundError | PermissionError):
        return "is not tried: a TLS file of [oslo_messaging_rabbit] can't be read"
    if isinstance(error, amqp.AccessRefused):
        return f"refuses user or password: check both in {OPTION}"
    if isinstance(error, amqp.NotAllowed):
        return f"refuses the virtual host: check it in {OPTION}, and the user's permissions"
    if isinstance(error, TimeoutError):
        return "does not respond in time: check host and port, firewalls, and TLS on both sides"
    reason = getattr(error, "strerror", None) or type(error).__name__
    return f"can't be reached ({reason}): check that RabbitMQ runs, its host and port"
