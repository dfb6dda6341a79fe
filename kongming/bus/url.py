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

"""Transport URLs, parsed as the driver does, and refused without quoting a password.

The messages of the libraries quote the URL. URLs that the driver accepts, and never connects
with, are refused as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import functools
from importlib.metadata import entry_points
import re
from typing import Any

from oslo_config import cfg
import oslo_messaging

from kongming import exception
from kongming.bus import queue_kind

RABBIT = ("rabbit", "kombu+rabbit", "amqp", "kombu+amqp")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_.])?|[0-9A-Fa-f:.]+(%[\w.]+)?")
_FORM = "rabbit://user:password@host:5672/vhost"
_PARTS = re.compile(r"([^/?#]*)([/?#]?)(.*)", re.DOTALL)
_ENCODED = {"?": "%3F", "#": "%23"}
_SLASH = "the driver can't log in if user or password has a /, even encoded; choose others"


def parse(option: str, text: str) -> oslo_messaging.TransportURL:
    """Read a transport URL.

    :param option: the option to name in the error.
    :raises ConfigInvalid: if it can't be used; quotes no part of the URL.
    """
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.partition("+")[0] not in _drivers():
        raise exception.ConfigInvalid(
            f"{option} does not begin with a known driver: write it as {_FORM}"
        )
    if scheme not in RABBIT:
        return _parsed(option, text)
    _check_signs(option, rest)
    url = _parsed(option, text)
    for host in url.hosts:
        _check_host(option, host)
    if len({host.username is None for host in url.hosts}) > 1:
        raise exception.ConfigInvalid(
            f"{option}: either all hosts or none must have user and password; write a comma in "
            "them as %2C"
        )
    if re.search(r"[\s#?%;]", url.virtual_host or ""):
        raise exception.ConfigInvalid(
            f"{option}: the driver can't use a virtual host with a space, #, ?, % or ; in its name"
        )
    return url


def open_transport(
    opener: Callable[[cfg.ConfigOpts], Any],
    conf: cfg.ConfigOpts,
    option: str,
    queues: Mapping[str, bool],
) -> Any:
    """Return a transport of oslo.messaging; it is not connected yet.

    :param opener: the function of oslo.messaging that creates it.
    :param queues: the defaults of the options that decide the kind of its queues.
    :raises ConfigInvalid: if its driver can't be used.
    """
    queue_kind.set_defaults(conf, queues)
    try:
        return opener(conf)
    except (oslo_messaging.MessagingException, ValueError, ImportError) as error:
        # Its text may quote the URL.
        raise exception.ConfigInvalid(
            f"{option}: its driver can't be used ({type(error).__name__}): are its libraries "
            "installed?"
        ) from None


def check_rabbit(conf: cfg.ConfigOpts) -> None:
    """Check options that the driver checks only when it connects.

    :raises ConfigInvalid: naming the option and the rule.
    """
    from oslo_messaging._drivers.impl_rabbit import Connection

    options = conf.oslo_messaging_rabbit
    known = sorted(Connection._SSL_PROTOCOLS)
    if options.ssl and options.ssl_version and options.ssl_version.lower() not in known:
        raise exception.ConfigInvalid(
            f"[oslo_messaging_rabbit] ssl_version: the driver supports only {', '.join(known)}; "
            "unset it to use the newest version that both sides support"
        )
    if options.rabbit_quorum_queue and options.rabbit_ha_queues:
        raise exception.ConfigInvalid(
            "[oslo_messaging_rabbit] rabbit_ha_queues: a quorum queue can't be mirrored, too; "
            "unset it, or rabbit_quorum_queue"
        )
    if options.rabbit_stream_fanout and not (
        options.rabbit_transient_quorum_queue and options.rabbit_qos_prefetch_count
    ):
        raise exception.ConfigInvalid(
            "[oslo_messaging_rabbit] rabbit_stream_fanout needs rabbit_transient_quorum_queue = "
            "true and a rabbit_qos_prefetch_count above 0"
        )


@functools.cache
def _drivers() -> set[str]:
    return {found.name for found in entry_points(group="oslo.messaging.drivers")}


def _check_signs(option: str, rest: str) -> None:
    """Refuse characters that end their part of the URL.

    :param rest: the URL after its driver.
    """
    _hosts, sign, after = _PARTS.fullmatch(rest).groups()  # type: ignore[union-attr]
    if "@" in after:
        raise exception.ConfigInvalid(
            f"{option}: {_SLASH}; write an @ in the virtual host as %40"
            if sign == "/"
            else f"{option}: write a {sign} in user or password as {_ENCODED[sign]}"
        )
    if "#" in rest or re.search(r"\s", rest):
        raise exception.ConfigInvalid(f"{option}: write a # as %23 and a space as %20")


def _parsed(option: str, text: str) -> oslo_messaging.TransportURL:
    try:
        # It registers options, which only a transport needs.
        return oslo_messaging.TransportURL.parse(cfg.ConfigOpts(), text)
    except Exception:  # noqa: BLE001
        raise exception.ConfigInvalid(
            f"{option} can't be read as {_FORM}: the port must be a number; in user and password, "
            "write characters other than letters, digits and - _ . ~ as %-escapes"
        ) from None


def _check_host(option: str, host: Any) -> None:
    if not host.hostname or not _HOST.fullmatch(host.hostname):
        raise exception.ConfigInvalid(
            f"{option} has a host that is neither a name nor an address; write characters such as "
            "@ in user and password as %-escapes (%40)"
        )
    if host.port is not None and not 0 < host.port < 65536:
        raise exception.ConfigInvalid(f"{option} has a port that is not between 1 and 65535")
    if "/" in f"{host.username or ''}{host.password or ''}":
        raise exception.ConfigInvalid(f"{option}: {_SLASH}")
