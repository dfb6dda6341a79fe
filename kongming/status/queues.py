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

"""Do queues grow without limit? RabbitMQ's management API tells.

oslo.messaging can't set limits on the queues that it declares: a policy can.
"""

from __future__ import annotations

from collections.abc import Iterator
import json
import ssl
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import (
    HTTPBasicAuthHandler,
    HTTPPasswordMgrWithPriorAuth,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    build_opener,
)

from oslo_config import cfg
from oslo_upgradecheck.upgradecheck import Result

from kongming.conf.notification_handler import topics
from kongming.status.broker import parse_url
from kongming.status.finding import bad, doubtful, good

_TIMEOUT_S = 3.0
_OPTION = "[status] management_url"
_ENDS = ("expires", "max-length", "max-length-bytes", "message-ttl")
_PRIORITY = "info"


def check(conf: cfg.ConfigOpts) -> Iterator[Result]:
    """Ask for our pool's queues, and for those that Nova declares beside them."""
    if not conf.status.management_url:
        yield good(
            f"not checked: set {_OPTION} to have it seen whether queues grow without limit, or "
            "see 'rabbitmqctl list_queues name messages consumers policy'"
        )
        return
    url = parse_url(conf)
    base = _base(conf.status.management_url)
    if url is None or base is None:
        yield bad(f"{_OPTION} or transport_url can't be used: correct the one that is wrong")
        return
    vhost = url.virtual_host or "/"
    options = conf.notification_handler
    try:
        opener = _opener(conf, base)
        if options.pool:
            yield _pool(options.pool, _queue(opener, base, vhost, options.pool))
        for topic in topics(conf) if options.pool else ():
            name = f"{topic}.{_PRIORITY}"
            yield _plain(name, _queue(opener, base, vhost, name))
    except (OSError, ValueError) as error:
        yield bad(f"RabbitMQ's management API at {base} {_why(error)}")


def _pool(name: str, queue: dict[str, Any] | None) -> Result:
    if queue is None:
        return doubtful(
            f"there is no queue {name} in this virtual host: has the service ever listened with "
            "this configuration?"
        )
    if _is_limited(queue):
        return good(f"the queue {name} has a limit")
    return doubtful(
        f"no policy limits the queue {name}: if this host is away for long, or goes for good, it "
        "grows without end; set expires and max-length by a policy (administration guide, "
        "RabbitMQ)"
    )


def _plain(name: str, queue: dict[str, Any] | None) -> Result:
    if queue is None:
        return good(f"there is no queue {name}")
    if queue.get("consumers") or _is_limited(queue):
        return good(f"the queue {name} is read or has a limit")
    return doubtful(
        f"nobody reads the queue {name} and no policy limits it: it grows without end; set "
        "max-length by a policy (administration guide, RabbitMQ)"
    )


def _is_limited(queue: dict[str, Any]) -> bool:
    limits = dict(queue.get("effective_policy_definition") or {})
    arguments = queue.get("arguments") or {}
    return any(end in limits or f"x-{end}" in arguments for end in _ENDS)


def _queue(opener: OpenerDirector, base: str, vhost: str, name: str) -> dict[str, Any] | None:
    """Ask for a queue; None if there is none.

    :raises OSError: if the API can't be asked.
    """
    address = f"{base}/api/queues/{quote(vhost, safe='')}/{quote(name, safe='')}"
    try:
        with opener.open(address, timeout=_TIMEOUT_S) as answer:
            told = json.load(answer)
    except HTTPError as error:
        if error.code == 404:
            return None
        raise
    if not isinstance(told, dict):
        raise ValueError("no JSON object")  # noqa: TRY004
    return told


def _base(url: str) -> str | None:
    """Give the address without user and password; None if it can't be used."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.username
        host = parts.netloc.rpartition("@")[2]
        # Raises an error if it is no number.
        parts.port  # noqa: B018
    except ValueError:
        return None
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", "")) if usable else None


def _opener(conf: cfg.ConfigOpts, base: str) -> OpenerDirector:
    parts = urlsplit(conf.status.management_url)
    passwords = HTTPPasswordMgrWithPriorAuth()
    passwords.add_password(
        None,
        base,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        is_authenticated=True,
    )
    context = ssl.create_default_context(cafile=conf.oslo_messaging_rabbit.ssl_ca_file or None)
    # A broker is not behind the proxy that leads out of here.
    return build_opener(
        ProxyHandler({}), HTTPSHandler(context=context), HTTPBasicAuthHandler(passwords)
    )


def _why(error: Exception) -> str:
    if isinstance(error, HTTPError):
        if error.code in {401, 403}:
            return f"refuses user or password: check both in {_OPTION}, and the user's tags"
        return f"answers {error.code}: check {_OPTION}"
    if isinstance(error, ValueError):
        return f"answers something else than JSON: check {_OPTION}"
    cause = error.reason if isinstance(error, URLError) else error
    said = getattr(cause, "strerror", None) or type(cause).__name__
    return f"can't be reached ({said}): check {_OPTION}, and that its plugin is enabled"
