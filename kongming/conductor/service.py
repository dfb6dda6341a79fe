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

"""The conductor, the service of trigger 3 on a controller."""

from __future__ import annotations

from functools import partial
import logging
from typing import TYPE_CHECKING
import uuid

from kongming.conductor.claims import Claims, HostClaims, NovaClaims
from kongming.conductor.delivery import Delivery
from kongming.conductor.endpoint import Endpoint
from kongming.conductor.notifications import Notifications
from kongming.conductor.nova_sync import NovaSync
from kongming.conductor.pusher import Pusher
from kongming.conf import database as conf_database
from kongming.conf import nova as conf_nova
from kongming.db.allocations import Allocations
from kongming.db.database import Database
from kongming.db.hosts import Hosts
from kongming.db.leases import Leases
from kongming.nova.polling import PollIntervals
from kongming.rpc.bus import CONDUCTOR, open_bus, subscription
from kongming.rpc.client import ExecutorClient
from kongming.rpc.server import Server
from kongming.runtime.service import Service

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from kongming.configuration.configuration import Configuration

LOG = logging.getLogger(__name__)

_STOP_CALLS_S = 5.0
_STOP_DELIVERY_S = 2.0
_STOP_PUSHES_S = 1.0

_LISTENING = "listening to API and executors"

# Many threads answer calls, most of them briefly. Waiting for one of a few connections costs less
# than opening more, or than running all of them at once.
_CONNECTIONS = {"max_pool_size": 16, "max_overflow": 0}


class ConductorService(Service):
    """A conductor; any number of them may run."""

    def __init__(self, conf: Configuration) -> None:
        """Build all parts.

        :raises DatabaseUnavailable: if it has another schema.
        :raises ConfigInvalid: if options can't be used.
        """
        super().__init__(conf, _LISTENING)
        for option, value in _CONNECTIONS.items():
            conf.set_default(option, value, group=conf_database.GROUP)
        database = Database(conf)
        database.check_schema()
        self._bus = open_bus(conf)
        allocations, hosts = Allocations(database), Hosts(database)
        executors = self._executors = ExecutorClient(self._bus, conf.conductor.host_timeout)
        self._nova_sync = self._open_nova_sync(allocations)
        self._notifications = Notifications.of(conf)
        self._delivery = Delivery(
            # Two conductors may run on one controller.
            f"{conf.host}/{uuid.uuid4()}",
            allocations,
            Leases(database),
            Pusher(allocations, hosts, executors),
            self._nova_sync,
            self._intervals(),
            self._notifications,
            hosts,
        )
        claims: Claims = (
            HostClaims(allocations, hosts)
            if self._nova_sync is None
            else NovaClaims(self._delivery.locate_soon)
        )
        endpoint = Endpoint(
            allocations, hosts, executors, self._delivery, claims, self._notifications
        )
        self._calls = subscription(
            self._bus,
            CONDUCTOR,
            conf.host,
            Server(endpoint.methods, self._bus.signer, self._bus.refusals),
            partial(self._readiness.reached, _LISTENING),
            "the executors repeat their requests",
        )
        self._allocations, self._hosts = allocations, hosts
        self.open_metrics(self._collectors)

    def start(self) -> None:
        """Start the threads; return at once, even if other services are unavailable."""
        LOG.info(
            "Starting on %s; Nova's API is %s",
            self._conf.host,
            "not used: the executors report where instances run, and their projects are unknown"
            if self._nova_sync is None
            else "used",
        )
        self._calls.start()
        self._delivery.start()
        self.start_metrics()

    def stop(self) -> None:
        """Accept no more calls, and finish those in progress."""
        LOG.info("Shutting down")
        self.stop_metrics()
        self._calls.stop(_STOP_CALLS_S)
        self._delivery.stop(_STOP_DELIVERY_S)
        self._executors.outbox.flush(_STOP_PUSHES_S)
        self._notifications.flush(_STOP_PUSHES_S)
        LOG.info("Stopped")

    def options_changed(self) -> None:
        """Put the settings in force."""
        self._delivery.intervals = self._intervals()
        self._executors.set_host_timeout(self._conf.conductor.host_timeout)

    def _intervals(self) -> PollIntervals:
        options = self._conf.conductor
        return PollIntervals(options.poll_interval, options.poll_full_interval)

    def _collectors(self) -> list[Collector]:
        from kongming.conductor.metrics import ConductorCollector

        return [
            ConductorCollector(
                self._calls,
                self._executors.outbox,
                self._bus.refusals,
                self._delivery,
                self._allocations,
                self._hosts,
            )
        ]

    def _open_nova_sync(self, allocations: Allocations) -> NovaSync | None:
        if not conf_nova.is_configured(self._conf):
            return None
        # Imported here, because its libraries are not needed without Nova.
        from kongming.nova.client import Nova

        return NovaSync(Nova(self._conf), allocations)
