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

"""The service of trigger 3 on a compute host: calls, exchange and executor in one process."""

from __future__ import annotations

from dataclasses import replace
import logging
import time
from typing import TYPE_CHECKING, Any

from kongming import exception, version
from kongming.executor.service import HostService
from kongming.host import snapshot
from kongming.rpc.bus import EXECUTOR, open_bus, subscription
from kongming.rpc.client import ConductorClient
from kongming.rpc.messages import ExecutorInfo
from kongming.rpc.server import Server
from kongming.standalone.conductor_sync import ConductorSync
from kongming.standalone.desired import DesiredAllocations
from kongming.standalone.endpoint import Endpoint

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from kongming.configuration.configuration import Configuration

LOG = logging.getLogger(__name__)

# Together below the 10 s in which the service ends.
_STOP_CALLS_S = 4.0
_STOP_SYNC_S = 2.0
_STOP_EXECUTOR_S = 3.0

_LISTENING = "listening to the conductors"


class ExecutorService(HostService):
    """The executor that places this host's guests as requested over Kongming's API."""

    def __init__(self, conf: Configuration) -> None:
        """Build all parts.

        :raises StoreUnavailable: if the state path can't be used.
        :raises ConfigInvalid: if options can't be used.
        """
        super().__init__(
            conf, _LISTENING, on_pass=self._report, on_unknown_guest=self._request_for
        )
        self._bus = open_bus(conf, conf.host)
        self._desired = DesiredAllocations(self._executor)
        self._conductor = ConductorClient(conf, self._bus)
        self._sync = ConductorSync(
            conf.host,
            ExecutorInfo(version.release(), time.time(), float(conf.executor.pull_interval)),
            self._conductor,
            self._desired,
            guests=self._executor.guests,
            snapshot=self._snapshot,
        )
        endpoint = Endpoint(conf.host, self._executor, self._desired, self._sync)
        self._calls = subscription(
            self._bus,
            EXECUTOR,
            conf.host,
            Server(endpoint.methods, self._bus.signer, self._bus.refusals),
            self._listening,
            "all desired allocations are requested from a conductor",
        )
        self.open_metrics(self._collectors)

    def start(self) -> None:
        """Start the threads; return at once, even if other services are unavailable."""
        LOG.info(
            "Starting for host %s: placing guests as requested over Kongming's API",
            self._conf.host,
        )
        # Nova's hints were for another trigger; with this one, conductors ask Nova.
        self._executor.clear_hints()
        self._executor.start()
        self._calls.start()
        self._sync.start()
        self.start_metrics()

    def stop(self) -> None:
        """Accept no more calls, and finish the work in progress."""
        LOG.info("Shutting down")
        self.stop_metrics()
        self._calls.stop(_STOP_CALLS_S)
        self._sync.stop(_STOP_SYNC_S)
        self._executor.stop(_STOP_EXECUTOR_S)
        LOG.info("Stopped")

    def connected(self) -> None:
        """Request the desired allocations of the guests that libvirt has now."""
        super().connected()
        self._sync.request()

    def _listening(self) -> None:
        self._sync.listening()
        self._readiness.reached(_LISTENING)

    def options_changed(self) -> None:
        """Put the settings in force, and report the rules to a conductor."""
        super().options_changed()
        self._sync.info = replace(self._sync.info, interval_s=self._conf.executor.pull_interval)
        self._conductor.set_host_timeout(self._conf.conductor.host_timeout)
        self._sync.request()

    def _report(self, instance_uuid: str) -> None:
        self._sync.report(instance_uuid)

    def _request_for(self, instance_uuid: str) -> None:
        self._sync.request_for(instance_uuid)

    def _snapshot(self) -> tuple[dict[str, Any], str] | None:
        try:
            found = self._executor.snapshot()
        except (
            exception.HypervisorUnavailable,
            exception.LibvirtForbids,
            exception.Failed,
        ) as error:
            LOG.debug("No snapshot of the host at the moment: %s", error)
            return None
        return found, snapshot.digest(found)

    def _collectors(self) -> list[Collector]:
        from kongming.standalone.metrics import StandaloneCollector

        own = StandaloneCollector(self._sync, self._calls, self._bus.refusals)
        return [self.executor_collector(), own]
