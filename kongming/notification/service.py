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

"""kongming-notification-handler: listener, Nova poller and executor in one process."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from kongming import exception
from kongming.allocation.request import Source
from kongming.conf import nova as conf_nova
from kongming.conf.notification_handler import VERSIONED, topics
from kongming.executor.service import HostService
from kongming.notification import event
from kongming.notification.event_store import EventStore
from kongming.notification.handler import Handler
from kongming.notification.listener import Listener
from kongming.notification.metadata_trigger import MetadataTrigger
from kongming.notification.order import Order
from kongming.notification.pending_lookups import PendingLookups
from kongming.notification.similar_hosts import SimilarHosts
from kongming.nova.polling import PollIntervals

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from kongming.configuration.configuration import Configuration
    from kongming.notification.nova_poller import NovaPoller

LOG = logging.getLogger(__name__)

# Together below the 10 s within which the service stops.
_STOP_LISTENER_S = 5.0
_STOP_POLLER_S = 1.0
_STOP_EXECUTOR_S = 3.0

_LISTENING = "listening to Nova's notifications"


class NotificationHandlerService(HostService):
    """Receives Nova's notifications and places this host's guests."""

    def __init__(self, conf: Configuration) -> None:
        """Build all parts.

        :raises StoreUnavailable: if the state path can't be used.
        :raises ConfigInvalid: if options of the guard, the metrics or Nova can't be used.
        """
        super().__init__(conf, _LISTENING, request_lookup=self._look_up)
        self._event_store = EventStore(Path(conf.state_path))
        self._trigger = MetadataTrigger(self._executor, Order(self._event_store), self._look_up)
        self._poller = self._open_poller() if conf_nova.is_configured(conf) else None
        self._handler = self._make_handler()
        self._listener = Listener(
            conf,
            handle=self._handler.handle,
            on_malformed=self._handler.reject,
            on_listening=lambda: self._readiness.reached(_LISTENING),
            on_missed=self._recover_missed,
        )
        self.open_metrics(self._collectors)

    def start(self) -> None:
        """Start all threads; RabbitMQ and libvirt may be unavailable."""
        LOG.info(
            "Starting for host %s: %s trigger, exchange %s, topics %s, pool %s; Nova's API is %s",
            self._conf.host,
            self._conf.notification_handler.trigger,
            self._conf.notification_handler.exchange,
            ", ".join(topics(self._conf)),
            self._conf.notification_handler.pool or "none",
            "not used" if self._poller is None else "used",
        )
        self._executor.withdraw_all(Source.API, "kongming-notification-handler")
        self._executor.start()
        self._listener.start()
        if self._poller is not None:
            self._poller.start()
        self.start_metrics()

    def _look_up(self, instance_uuid: str) -> bool:
        """Request a lookup of an instance in Nova; return whether that is possible."""
        if self._poller is None:
            return False
        self._poller.request(instance_uuid)
        return True

    def _recover_missed(self) -> str:
        """Recover events that may have been missed; return how, for the log."""
        if self._poller is None:
            return "a missed edit takes effect with the next event of its instance"
        self._poller.request_all()
        return "a resync asks Nova about all instances of this host"

    def _open_poller(self) -> NovaPoller:
        # Imported here, as it costs memory that most services do not need.
        from kongming.notification.nova_poller import NovaPoller
        from kongming.nova.client import Nova

        return NovaPoller(
            self._conf.host,
            Nova(self._conf),
            PendingLookups(Path(self._conf.state_path)),
            self._trigger,
            held=lambda: self._executor.instances,
            intervals=self._intervals(),
            start_spread=float(self._conf.nova.start_spread),
        )

    def _intervals(self) -> PollIntervals:
        options = self._conf.nova
        return PollIntervals(options.resync_interval, options.resync_full_interval)

    def options_changed(self) -> None:
        """Put the settings in force."""
        super().options_changed()
        if self._poller is not None:
            self._poller.intervals = self._intervals()

    def _make_handler(self) -> Handler:
        if self._conf.notification_handler.trigger == VERSIONED:
            return Handler(self._conf.host, event.read, self._trigger, self._make_similar_hosts())
        if self._poller is None:
            raise exception.ConfigInvalid(
                "[notification_handler] trigger is legacy, which reads requests from Nova's API: "
                "set auth_type and its options in [nova]"
            )
        from kongming.notification.legacy_trigger import LegacyTrigger

        trigger = LegacyTrigger(self._trigger, self._poller)
        return Handler(self._conf.host, event.read_legacy, trigger, self._make_similar_hosts())

    def _make_similar_hosts(self) -> SimilarHosts:
        return SimilarHosts(self._conf.host, self._executor.guests, self._event_store)

    def _collectors(self) -> list[Collector]:
        from kongming.notification.metrics import NotificationCollector

        collectors = [
            self.executor_collector(),
            NotificationCollector(self._handler, self._listener),
        ]
        if self._poller is not None:
            from kongming.notification.nova_metrics import NovaCollector

            collectors.append(NovaCollector(self._poller))
        return collectors

    def stop(self) -> None:
        """Stop: handle no more events, and finish those that have begun."""
        LOG.info("Shutting down")
        self.stop_metrics()
        self._listener.stop(_STOP_LISTENER_S)
        if self._poller is not None:
            self._poller.stop(_STOP_POLLER_S)
        self._executor.stop(_STOP_EXECUTOR_S)
        self._event_store.close()
        counts = self._handler.counts
        LOG.info(
            "Stopped after %d events of this host, %d of other hosts and %d unreadable ones",
            counts["own"] + counts["late"],
            counts["foreign"],
            counts["malformed"],
        )
