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

"""Does Nova say what we need to hear?

Its own configuration tells, if we are told where that is; otherwise whether
it was ever heard does.
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
from kongming.executor.store.store import FILE_NAME
from kongming.notification.event_store import FILE_NAME as MEMORY
from kongming.notification.similar_hosts import describe
from kongming.nova import config
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
    """Read nova.conf; without it, look whether an event was ever seen."""
    paths = conf.guard.nova_config_file
    folder = Path(conf.state_path)
    alike = list(_lookalikes(folder, host_name.of(conf)))
    yield from alike
    if not paths:
        if not alike:
            yield _heard(folder)
        return
    try:
        nova = config.read(paths, _OPTIONS)
    except exception.ConfigInvalid as error:
        yield bad(f"[guard] nova_config_file: {error}")
        return
    findings = [
        *_emits(nova, conf.notification_handler.trigger),
        *_leads_here(nova, conf),
        *_same_broker(nova, conf),
    ]
    yield from findings or [good(f"{', '.join(paths)} has all required options on this node")]


def _lookalikes(folder: Path, host: str) -> Iterator[Result]:
    """Tell of hosts that the service has found to look like this one."""
    for name, instance_uuid in _rows(folder / MEMORY, "SELECT host, instance_uuid FROM lookalike"):
        kind = bad if instance_uuid else doubtful
        yield kind(describe(str(name), host, str(instance_uuid)))


def _heard(folder: Path) -> Result:
    unknown = doubtful(
        "it is not known whether Nova emits notifications: set [guard] nova_config_file to "
        "check nova.conf, or cause an event of an instance of this host"
    )
    heard = _rows(folder / MEMORY, "SELECT 1 FROM heard LIMIT 1") or _rows(
        folder / FILE_NAME,
        "SELECT 1 FROM (SELECT source FROM history UNION SELECT source FROM request)"
        " WHERE source = ?",
        Source.METADATA,
    )
    if heard:
        return good("Nova's notifications have reached this host before")
    return unknown


def _rows(path: Path, query: str, *parameters: str) -> list[tuple[Any, ...]]:
    """Read rows of one of the service's databases; none if that can't be done."""
    if not path.exists():
        return []
    try:
        with closing(open_read_only(path)) as db:
            return db.execute(query, parameters).fetchall()
    except sqlite3.Error:
        return []


def _emits(nova: cfg.ConfigOpts, trigger: str) -> Iterator[Result]:
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


def _same_broker(nova: cfg.ConfigOpts, conf: cfg.ConfigOpts) -> Iterator[Result]:
    """Compare where Nova's notifications go with where we listen; passwords are not shown."""
    theirs = nova.oslo_messaging_notifications.transport_url or nova.transport_url
    ours = broker.parse_url(conf)
    if theirs is None or ours is None or not ours.hosts:
        return
    try:
        url = parse("transport_url", theirs)
    except exception.ConfigInvalid as error:
        yield doubtful(f"nova.conf: {error}; it is not compared")
        return
    if (url.virtual_host or "/") != (ours.virtual_host or "/"):
        yield bad(
            f"nova.conf: Nova's notifications go to the virtual host {url.virtual_host or '/'}, "
            f"and {broker.OPTION} (or [DEFAULT] transport_url) has {ours.virtual_host or '/'} "
            "here: nothing arrives; set the same virtual host"
        )
    elif not _hosts(url) & _hosts(ours):
        yield doubtful(
            f"nova.conf: Nova's notifications go to {', '.join(sorted(_hosts(url)))}, and "
            f"{broker.OPTION} (or [DEFAULT] transport_url) has {', '.join(sorted(_hosts(ours)))} "
            "here: if these are not the same brokers, nothing arrives"
        )


def _hosts(url: oslo_messaging.TransportURL) -> set[str]:
    return {f"{host.hostname or 'localhost'}:{host.port or 5672}" for host in url.hosts} or {
        "localhost:5672"
    }


def _leads_here(nova: cfg.ConfigOpts, conf: cfg.ConfigOpts) -> Iterator[Result]:
    ours = conf.notification_handler
    # Nova leaves out a dot at the end, too.
    if nova.host.removesuffix(".") != conf.host:
        yield bad(
            f"nova.conf: [DEFAULT] host is {nova.host}, here it is {conf.host}: they must be "
            "equal, or Kongming ignores every event as another host's"
        )
    if nova.control_exchange != ours.exchange:
        yield bad(
            f"nova.conf: [DEFAULT] control_exchange is {nova.control_exchange}: set "
            f"[notification_handler] exchange, which is {ours.exchange}, to the same"
        )
    if ours.trigger == VERSIONED:
        option = "[notifications] versioned_notifications_topics"
        theirs = nova.notifications.versioned_notifications_topics
    else:
        option = "[oslo_messaging_notifications] topics"
        theirs = nova.oslo_messaging_notifications.topics
    if not set(theirs) & set(topics(conf)):
        yield bad(
            f"nova.conf: {option} is "
            f"{', '.join(theirs)}: [notification_handler] topics has none of these; add one"
        )
