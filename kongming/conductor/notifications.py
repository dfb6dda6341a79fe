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

"""Versioned notifications of conductors: outcomes of allocations, and unresponsive hosts.

They are sent in the background and may get lost: the API has the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
import logging
import queue
import threading
from typing import Any

from oslo_config import cfg
import oslo_messaging

from kongming.allocation.statuses import Status
from kongming.bus.keeper import Keeper, keep
from kongming.bus.queue_kind import QUORUM
from kongming.bus.reasons import explain
from kongming.bus.url import open_transport
from kongming.db.values import Host, Transition
from kongming.rpc.bus import EXCHANGE
from kongming.runtime.hourly import Hourly
from kongming.runtime.times import written

LOG = logging.getLogger(__name__)

VERSION = "1.0"
#: The statuses that are notified of, and the events.
EVENTS = {
    Status.APPLIED: "allocation.applied",
    Status.REFUSED: "allocation.refused",
    Status.FAILED: "allocation.failed",
    Status.DRIFTED: "allocation.drifted",
    Status.RELEASED: "allocation.released",
}
HOST_UNRESPONSIVE, HOST_UP = "host.unresponsive", "host.up"

_WAITING_MAX = 10_000


class Notifications:
    """The notifications of one conductor. Thread-safe.

    :param notifier: oslo.messaging's notifier; None to send nothing.
    """

    def __init__(self, notifier: Any) -> None:
        self._notifier = notifier
        self._waiting: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue(_WAITING_MAX)
        self._hourly = Hourly()
        self._unresponsive: set[str] | None = None
        if notifier is not None:
            threading.Thread(target=self._run, name="notifications", daemon=True).start()

    @classmethod
    def of(cls, conf: cfg.ConfigOpts) -> Notifications:
        """Return the notifications that ``[conductor] emit_notifications`` has.

        :raises ConfigInvalid: if their transport can't be used.
        """
        if not conf.conductor.emit_notifications:
            return cls(None)
        oslo_messaging.set_transport_defaults(EXCHANGE)
        opener = oslo_messaging.get_notification_transport
        option = "[oslo_messaging_notifications] transport_url"
        transport = open_transport(opener, conf, option, QUORUM)
        keep(transport, Keeper())
        publisher = f"kongming-conductor:{conf.host}"
        return cls(oslo_messaging.Notifier(transport, publisher, driver="messagingv2", retry=0))

    def of_allocations(self, transitions: Iterable[Transition]) -> None:
        """Notify of changed statuses."""
        if self._notifier is None:
            return
        for transition in transitions:
            if event := EVENTS.get(transition.status):
                data = asdict(transition)
                data["map"] = data.pop("map_name")
                data["changed_at"] = written(transition.changed_at)
                self._put(event, "AllocationPayload", data)

    def of_hosts(self, read: Callable[[], Iterable[Host]], now: float) -> None:
        """Notify of the hosts that have become unresponsive, or responsive again, since.

        :param read: reads all hosts; it is not called if nothing is sent.
        """
        if self._notifier is None:
            return
        found = {host.name: host for host in read()}
        unresponsive = {name for name, host in found.items() if host.unresponsive(now)}
        former, self._unresponsive = self._unresponsive, unresponsive
        if former is None:
            return
        for event, names in (
            (HOST_UNRESPONSIVE, unresponsive - former),
            (HOST_UP, (former & found.keys()) - unresponsive),
        ):
            for name in sorted(names):
                last = written(found[name].heartbeat_at)
                self._put(event, "HostPayload", {"name": name, "heartbeat_at": last})

    def _put(self, event: str, kind: str, data: dict[str, Any]) -> None:
        payload = {
            "kongming_object.name": kind,
            "kongming_object.namespace": "kongming",
            "kongming_object.version": VERSION,
            "kongming_object.data": data,
        }
        try:
            self._waiting.put_nowait((event, payload))
        except queue.Full:
            self._dropped(f"{_WAITING_MAX} are waiting already")

    def flush(self, timeout: float) -> None:
        """Wait until all are sent, at most so long."""
        waiter = threading.Thread(target=self._waiting.join, daemon=True)
        waiter.start()
        waiter.join(timeout)

    def _run(self) -> None:
        while True:
            event, payload = self._waiting.get()
            try:
                self._notifier.info({}, event, payload)
            except Exception as error:  # noqa: BLE001
                # The driver passes on any error of the AMQP library.
                self._dropped(explain(error).words)
            finally:
                self._waiting.task_done()

    def _dropped(self, why: str) -> None:
        if self._hourly.should_log("dropped"):
            LOG.warning("Notifications are dropped: %s; the API has all statuses", why)
