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

"""Check whether Nova emits the notifications that the service needs.

Nova's configuration shows it if its path is known; otherwise past events do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
import socket
import sqlite3
from typing import Any

from oslo_config import cfg
import oslo_messaging
from oslo_upgradecheck.upgradecheck import Result

from kongming import exception
from kongming.allocation import host_name
from kongming.allocation.request import Source
from kongming.bus.url import parse
from kongming.conf.notification_handler import LEGACY, VERSIONED, topics
from kongming.configuration import of_nova
from kongming.executor.store.store import FILE_NAME
from kongming.notification.event_store import FILE_NAME as EVENT_STORE
from kongming.notification.similar_hosts import describe
from kongming.status import broker
from kongming.status.finding import bad, doubtful, good
from kongming.status.state import open_read_only


def _former(name: str) -> cfg.DeprecatedOpt:
    return cfg.DeprecatedOpt(name, group="DEFAULT")


_OPTIONS: dict[str | None, list[Any]] = {
    None: [
        cfg.StrOpt("host", default=socket.gethostname()),
        cfg.StrOpt("control_exchange", default="nova"),
        cfg.StrOpt("transport_url"),
    ],
    "notifications": [
        cfg.StrOpt("notification_format", default="unversioned", deprecated_group="DEFAULT"),
        cfg.StrOpt("notify_on_state_change", deprecated_group="DEFAULT"),
        cfg.ListOpt("versioned_notifications_topics", default=["versioned_notifications"]),
    ],
    "oslo_messaging_notifications": [
        cfg.MultiStrOpt("driver", default=[], deprecated_opts=[_former("notification_driver")]),
        cfg.ListOpt(
            "topics",
            default=["notifications"],
            deprecated_opts=[
                _former("notification_topics"),
                cfg.DeprecatedOpt("topics", group="rpc_notifier2"),
            ],
        ),
        cfg.StrOpt("transport_url", deprecated_opts=[_former("notification_transport_url")]),
    ],
}
_FORMATS = {VERSIONED: ("versioned", "both"), LEGACY: ("unversioned", "both")}
_STATES = ("vm_state", "vm_and_task_state")
_DRIVERS = ("messaging", "messagingv2")


def check(conf: cfg.ConfigOpts) -> Iterator[Result]:
    """Read nova.conf; without it, check for past events."""
    paths = conf.guard.nova_config_file
    folder = Path(conf.state_path)
    similar = list(_similar_hosts(folder, host_name.of(conf)))
    yield from similar
    if not paths:
        if not similar:
            yield _received(folder)
        return
    try:
        nova = of_nova.read(paths, _OPTIONS)
    except exception.ConfigInvalid as error:
        yield bad(str(error))
        return
    findings = [
        *_check_emission(nova, conf.notification_handler.trigger),
        *_check_destination(nova, conf),
        *_check_broker(nova, conf),
    ]
    yield from findings or [good(f"{', '.join(paths)} has all required options on this node")]


def _similar_hosts(folder: Path, host: str) -> Iterator[Result]:
    """Report hosts with names similar to this one's that the service has found."""
    for name, instance_uuid in _rows(
        folder / EVENT_STORE, "SELECT host, instance_uuid FROM similar_host"
    ):
        kind = bad if instance_uuid else doubtful
        yield kind(describe(str(name), host, str(instance_uuid)))


def _received(folder: Path) -> Result:
    unknown = doubtful(
        "it is not known whether Nova emits notifications: set [guard] nova_config_file to "
        "check nova.conf, or cause an event of an instance of this host"
    )
    received = _rows(folder / EVENT_STORE, "SELECT 1 FROM last_events LIMIT 1") or _rows(
        folder / FILE_NAME,
        "SELECT 1 FROM (SELECT source FROM history UNION SELECT source FROM request)"
        " WHERE source = ?",
        Source.METADATA,
    )
    if received:
        return good("Nova's notifications have reached this host before")
    return unknown


def _rows(path: Path, query: str, *parameters: str) -> list[tuple[Any, ...]]:
    """Read rows of one of the service's databases; none if it can't be read."""
    if not path.exists():
        return []
    try:
        with closing(open_read_only(path)) as db:
            return db.execute(query, parameters).fetchall()
    except sqlite3.Error:
        return []


def _check_emission(nova: cfg.ConfigOpts, trigger: str) -> Iterator[Result]:
    options = nova.notifications
    if options.notification_format not in _FORMATS[trigger]:
        yield bad(
            "nova.conf: [notifications] notification_format is "
            f"{options.notification_format}: set it to {' or '.join(_FORMATS[trigger])}, on every "
            "node of Nova"
        )
    drivers = nova.oslo_messaging_notifications.driver
    if "routing" in drivers:
        yield doubtful(
            "nova.conf: [oslo_messaging_notifications] driver is routing: check that its routing "
            "configuration sends the events of instances by messagingv2"
        )
    elif not set(_DRIVERS) & set(drivers):
        yield bad(
            "nova.conf: [oslo_messaging_notifications] driver is not set, so Nova sends nothing: "
            "set it to messagingv2, on every node of Nova"
        )
    if options.notify_on_state_change not in _STATES:
        yield doubtful(
            "nova.conf: [notifications] notify_on_state_change is not set: a nova-api with this "
            "setting does not notify of metadata changes of running instances; set it to "
            "vm_state"
        )


def _check_broker(nova: cfg.ConfigOpts, conf: cfg.ConfigOpts) -> Iterator[Result]:
    """Compare the destination of Nova's notifications with this service's broker.

    Passwords are not shown.
    """
    novas = nova.oslo_messaging_notifications.transport_url or nova.transport_url
    own = broker.parse_url(conf)
    if novas is None or own is None or not own.hosts:
        return
    try:
        url = parse("transport_url", novas)
    except exception.ConfigInvalid as error:
        yield doubtful(f"nova.conf: {error}; it is not compared")
        return
    if (url.virtual_host or "/") != (own.virtual_host or "/"):
        yield bad(
            f"nova.conf: Nova's notifications go to the virtual host {url.virtual_host or '/'}, "
            f"and {broker.OPTION} (or [DEFAULT] transport_url) has {own.virtual_host or '/'} "
            "here: nothing arrives; set the same virtual host"
        )
    elif not _hosts(url) & _hosts(own):
        yield doubtful(
            f"nova.conf: Nova's notifications go to {', '.join(sorted(_hosts(url)))}, and "
            f"{broker.OPTION} (or [DEFAULT] transport_url) has {', '.join(sorted(_hosts(own)))} "
            "here: if these are not the same brokers, nothing arrives"
        )


def _hosts(url: oslo_messaging.TransportURL) -> set[str]:
    return {f"{host.hostname or 'localhost'}:{host.port or 5672}" for host in url.hosts} or {
        "localhost:5672"
    }


def _check_destination(nova: cfg.ConfigOpts, conf: cfg.ConfigOpts) -> Iterator[Result]:
    own = conf.notification_handler
    # Nova, too, removes a dot at the end.
    if nova.host.removesuffix(".") != conf.host:
        yield bad(
            f"nova.conf: [DEFAULT] host is {nova.host}, here it is {conf.host}: they must be "
            "equal, or Kongming ignores every event as another host's"
        )
    if nova.control_exchange != own.exchange:
        yield bad(
            f"nova.conf: [DEFAULT] control_exchange is {nova.control_exchange}: set "
            f"[notification_handler] exchange, which is {own.exchange}, to the same"
        )
    if own.trigger == VERSIONED:
        option = "[notifications] versioned_notifications_topics"
        novas = nova.notifications.versioned_notifications_topics
    else:
        option = "[oslo_messaging_notifications] topics"
        novas = nova.oslo_messaging_notifications.topics
    if not set(novas) & set(topics(conf)):
        yield bad(
            f"nova.conf: {option} is "
            f"{', '.join(novas)}: [notification_handler] topics has none of these; add one"
        )
