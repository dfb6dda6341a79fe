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
from oslo_upgradecheck.upgradecheck import Result

from kongming import exception, nova_config
from kongming.conf.notification_handler import LEGACY, VERSIONED, topics
from kongming.executor.request import Source
from kongming.executor.store import FILE_NAME
from kongming.status.finding import bad, doubtful, good
from kongming.status.state import open_read_only

_OPTIONS: dict[str | None, list[Any]] = {
    None: [
        cfg.StrOpt("host", default=socket.gethostname()),
        cfg.StrOpt("control_exchange", default="nova"),
    ],
    "notifications": [
        cfg.StrOpt("notification_format", default="unversioned"),
        cfg.StrOpt("notify_on_state_change"),
        cfg.ListOpt("versioned_notifications_topics", default=["versioned_notifications"]),
    ],
    "oslo_messaging_notifications": [
        cfg.MultiStrOpt("driver", default=[]),
        cfg.ListOpt("topics", default=["notifications"]),
    ],
}
_FORMATS = {VERSIONED: ("versioned", "both"), LEGACY: ("unversioned", "both")}
_STATES = ("vm_state", "vm_and_task_state")
_DRIVERS = ("messaging", "messagingv2")


def check(conf: cfg.ConfigOpts) -> Iterator[Result]:
    """Read nova.conf; without it, look whether an event was ever seen."""
    paths = conf.guard.nova_config_file
    if not paths:
        yield _heard(Path(conf.state_path) / FILE_NAME)
        return
    try:
        nova = nova_config.read(paths, _OPTIONS)
    except exception.ConfigInvalid as error:
        yield bad(f"[guard] nova_config_file: {error}")
        return
    findings = [*_emits(nova, conf.notification_handler.trigger), *_leads_here(nova, conf)]
    yield from findings or [good(f"{', '.join(paths)} has all that is needed on this node")]


def _heard(path: Path) -> Result:
    unknown = doubtful(
        "not known whether Nova emits notifications: set [guard] nova_config_file to "
        "have nova.conf read, or set a kongming- key on an instance of this host"
    )
    if not path.exists():
        return unknown
    try:
        with closing(open_read_only(path)) as db:
            (seen,) = db.execute(
                "SELECT exists (SELECT 1 FROM history WHERE source = ?1)"
                " OR exists (SELECT 1 FROM request WHERE source = ?1)",
                (Source.METADATA,),
            ).fetchone()
    except sqlite3.Error:
        return unknown
    return good("Nova's notifications have reached this host before") if seen else unknown


def _emits(nova: cfg.ConfigOpts, trigger: str) -> Iterator[Result]:
    options = nova.notifications
    if options.notification_format not in _FORMATS[trigger]:
        yield bad(
            "nova.conf: [notifications] notification_format is "
            f"{options.notification_format}: set it to {' or '.join(_FORMATS[trigger])}, on every "
            "node of Nova"
        )
    if not set(_DRIVERS) & set(nova.oslo_messaging_notifications.driver):
        yield bad(
            "nova.conf: [oslo_messaging_notifications] driver is not set, so Nova sends nothing: "
            "set it to messagingv2, on every node of Nova"
        )
    if options.notify_on_state_change not in _STATES:
        yield doubtful(
            "nova.conf: [notifications] notify_on_state_change is not set: where it is so on the "
            "nodes of nova-api, metadata edits of running instances are not announced; set it to "
            "vm_state"
        )


def _leads_here(nova: cfg.ConfigOpts, conf: cfg.ConfigOpts) -> Iterator[Result]:
    ours = conf.notification_handler
    if nova.host != conf.host:
        yield bad(
            f"nova.conf: [DEFAULT] host is {nova.host}, here it is {conf.host}: they must be "
            "equal, or every event is taken for another host's"
        )
    if nova.control_exchange != ours.exchange:
        yield bad(
            f"nova.conf: [DEFAULT] control_exchange is {nova.control_exchange}: set "
            f"[notification_handler] exchange, which is {ours.exchange}, to that"
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
            f"{', '.join(theirs)}: [notification_handler] topics has none of these"
        )
