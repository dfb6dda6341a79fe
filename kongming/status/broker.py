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

from collections.abc import Callable, Iterator
import contextlib
from functools import partial
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
from kongming.rpc.bus import EXCHANGE
from kongming.status.finding import bad, doubtful, good

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
    yield from _check(conf, OPTION, conf.notification_handler.exchange, missing)


def check_calls(conf: cfg.ConfigOpts) -> Iterator[Result]:
    """Try each host of the transport URL for calls, and check Kongming's exchange."""
    missing = (
        "no conductor and no executor has ever connected to this virtual host; start "
        "kongming-conductor, and check that controllers and compute hosts have the same one"
    )
    yield from _check(conf, _CALLS_OPTION, EXCHANGE, missing)


def parse_url(conf: cfg.ConfigOpts, option: str = OPTION) -> oslo_messaging.TransportURL | None:
    """Return the transport URL as the service would use it; None if it can't be used."""
    calls = option == _CALLS_OPTION
    opener = (
        oslo_messaging.get_rpc_transport if calls else oslo_messaging.get_notification_transport
    )
    try:
        # Registers the driver's options, too.
        open_transport(opener, conf, option)
        own = None if calls else conf.oslo_messaging_notifications.transport_url
        return parse(option, own or conf.transport_url)
    except exception.ConfigInvalid:
        return None


def _check(conf: cfg.ConfigOpts, option: str, exchange: str, missing: str) -> Iterator[Result]:
    """Check the hosts of a transport URL.

    :param missing: why the exchange may be missing, and what to do.
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
        yield from _try_all(conf, url, partial(_exchange, exchange, missing), option)


def _try_all(
    conf: cfg.ConfigOpts,
    url: oslo_messaging.TransportURL,
    check_exchange: Callable[[Any], Result],
    option: str,
) -> Iterator[Result]:
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
                why = f"is not tried: {files}" if files else _why(error, option)
                refused.append(f"{host.hostname}:{host.port} {why}")
                continue
            if not is_available:
                is_available = True
                yield good(f"{host.hostname}:{host.port} accepts the connection")
                yield check_exchange(connection)
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


def _exchange(name: str, missing: str, connection: Any) -> Result:
    try:
        connection.channel().exchange_declare(name, "topic", passive=True)
    except amqp.NotFound:
        return doubtful(f"the exchange {name} does not exist: {missing}")
    return good(f"the exchange {name} exists")


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
