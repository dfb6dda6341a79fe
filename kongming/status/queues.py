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

"""Check by RabbitMQ's management API whether queues are bound, and limited as they should be.

oslo.messaging can't set limits on the queues that it declares: a policy can. Only this API shows
whether a queue is bound.
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

from kongming.allocation import host_name
from kongming.conf.notification_handler import topics
from kongming.status.broker import parse_url
from kongming.status.finding import bad, doubtful, good

_TIMEOUT_S = 3.0
_OPTION = "[status] management_url"
_ENDS = ("expires", "max-length", "max-length-bytes", "message-ttl")
_PRIORITY = "info"
#: The least acceptable limit of deliveries; RabbitMQ's default is 20 from version 4 on.
_DELIVERIES_MIN = 100


def check(conf: cfg.ConfigOpts) -> Iterator[Result]:
    """Check the queues of this service's pool, and those that Nova declares."""
    if not conf.status.management_url:
        yield good(
            f"not checked: set {_OPTION} to check whether queues can grow without limit, or "
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
            host_name.of(conf)
            queue = _queue(opener, base, vhost, options.pool)
            yield _pool(options.pool, queue)
            if queue is not None:
                yield _bound(conf, _bindings(opener, base, vhost, options))
                yield from _delivered(options.pool, queue)
        for topic in topics(conf) if options.pool else ():
            name = f"{topic}.{_PRIORITY}"
            yield _plain(name, _queue(opener, base, vhost, name))
    except (OSError, ValueError) as error:
        yield bad(f"RabbitMQ's management API at {base} {_why(error)}")


def _pool(name: str, queue: dict[str, Any] | None) -> Result:
    if queue is None:
        return doubtful(
            f"the queue {name} does not exist in this virtual host: start the service with this "
            "configuration"
        )
    if _is_limited(queue):
        return good(f"the queue {name} has a limit")
    return doubtful(
        f"no policy limits the queue {name}: while this host is unavailable, or after it was "
        "removed, it grows without limit; set expires and max-length by a policy (administration "
        "guide, RabbitMQ)"
    )


def _bound(conf: cfg.ConfigOpts, keys: set[str]) -> Result:
    """Check the routing keys with which the queue is bound to Nova's exchange."""
    options = conf.notification_handler
    where = f"the queue {options.pool} is bound to the exchange {options.exchange}"
    missing = [key for topic in topics(conf) if (key := f"{topic}.{_PRIORITY}") not in keys]
    if not missing:
        return good(where)
    return bad(
        f"{where.replace('is bound', 'is not bound')} with {', '.join(missing)}: this host gets "
        "no events; a running service binds it again within a minute, so check its log"
    )


def _delivered(name: str, queue: dict[str, Any]) -> Iterator[Result]:
    """Check how often a quorum queue delivers a message before it drops it."""
    if queue.get("type") != "quorum":
        return
    policy = dict(queue.get("effective_policy_definition") or {})
    arguments = queue.get("arguments") or {}
    set_to = [policy.get("delivery-limit"), arguments.get("x-delivery-limit")]
    limits = [limit for limit in set_to if isinstance(limit, int)]
    if limits and all(limit < 0 or limit >= _DELIVERIES_MIN for limit in limits):
        yield good(f"the quorum queue {name} delivers a message often enough")
        return
    often = f"{min(limits)} times" if limits else "by RabbitMQ's default limit (20 from 4 on)"
    yield doubtful(
        f"the quorum queue {name} drops a message that it has delivered {often}, stored or not: "
        "set delivery-limit by a policy (administration guide, RabbitMQ)"
    )


def _plain(name: str, queue: dict[str, Any] | None) -> Result:
    if queue is None:
        return good(f"the queue {name} does not exist")
    if queue.get("consumers") or _is_limited(queue):
        return good(f"the queue {name} has a consumer or a limit")
    return doubtful(
        f"the queue {name} has no consumer and no policy limits it: it grows without limit; "
        "set max-length by a policy (administration guide, RabbitMQ)"
    )


def _is_limited(queue: dict[str, Any]) -> bool:
    limits = dict(queue.get("effective_policy_definition") or {})
    arguments = queue.get("arguments") or {}
    return any(end in limits or f"x-{end}" in arguments for end in _ENDS)


def _queue(opener: OpenerDirector, base: str, vhost: str, name: str) -> dict[str, Any] | None:
    """Return a queue; None if it does not exist.

    :raises OSError: if the API is unavailable.
    """
    answer = _get(opener, base, "queues", vhost, name)
    if answer is not None and not isinstance(answer, dict):
        raise ValueError("not a JSON object")
    return answer


def _bindings(opener: OpenerDirector, base: str, vhost: str, options: Any) -> set[str]:
    """Return the routing keys with which the queue is bound to Nova's exchange.

    :raises OSError: if the API is unavailable.
    """
    between = ("e", options.exchange, "q", options.pool)
    answer = _get(opener, base, "bindings", vhost, *between) or []
    if not isinstance(answer, list) or not all(isinstance(each, dict) for each in answer):
        raise ValueError("not a JSON list of objects")
    return {str(each.get("routing_key")) for each in answer}


def _get(opener: OpenerDirector, base: str, *path: str) -> Any:
    """Return a resource; None if it does not exist."""
    address = "/".join([base, "api", *(quote(part, safe="") for part in path)])
    try:
        with opener.open(address, timeout=_TIMEOUT_S) as answer:
            return json.load(answer)
    except HTTPError as error:
        if error.code == 404:
            return None
        raise


def _base(url: str) -> str | None:
    """Return the address without user and password; None if it can't be used."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.username
        host = parts.netloc.rpartition("@")[2]
        # Raises an error if it is not a number.
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
    # A proxy for the outside can't reach the broker.
    handlers = [ProxyHandler({}), HTTPBasicAuthHandler(passwords)]
    if parts.scheme == "https":
        ca_file = conf.oslo_messaging_rabbit.ssl_ca_file or None
        handlers.append(HTTPSHandler(context=ssl.create_default_context(cafile=ca_file)))
    return build_opener(*handlers)


def _why(error: Exception) -> str:
    if isinstance(error, HTTPError):
        if error.code in {401, 403}:
            return f"refuses user or password: check both in {_OPTION}, and the user's tags"
        return f"responds with {error.code}: check {_OPTION}"
    if isinstance(error, ValueError):
        return f"does not respond with JSON: check {_OPTION}"
    cause = error.reason if isinstance(error, URLError) else error
    why = getattr(cause, "strerror", None) or type(cause).__name__
    return f"can't be reached ({why}): check {_OPTION}, and that its plugin is enabled"
