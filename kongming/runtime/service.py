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

"""The base of all services: readiness, watchdog, reload of the configuration, and metrics."""

from __future__ import annotations

import abc
from collections.abc import Callable
import logging
from pathlib import Path
import sys
from typing import TYPE_CHECKING, Any

from oslo_config import cfg

from kongming import exception
from kongming.runtime import report, systemd
from kongming.runtime.heartbeats import Heartbeats
from kongming.runtime.readiness import Readiness
from kongming.runtime.signals import END, RELOAD, REPORT, Signals

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from kongming.metrics.endpoint import Endpoint

LOG = logging.getLogger(__name__)


class ReloadableOpts(cfg.ConfigOpts):
    """Options whose reload is all or nothing."""

    @abc.abstractmethod
    def candidate(self) -> Any:
        """Read and check the files, without an effect on the options.

        :raises ConfigInvalid: if they can't be used.
        """

    @abc.abstractmethod
    def put_in_force(self, checked: Any, then: Callable[[], None]) -> None:
        """Put the mutable options of a candidate in force.

        :param then: reads settings from the options; may raise ConfigInvalid.
        :raises ConfigInvalid: if they can't be used; the previous options stay in force.
        """

    @abc.abstractmethod
    def warn_unread(self) -> None:
        """Log the settings that no service reads."""


class Service(abc.ABC):
    """One service in one process.

    :param parts: the parts that must have been ready once before the service is.
    :ivar heartbeats: if one is overdue, a service manager with a watchdog restarts the service.
    """

    def __init__(self, conf: ReloadableOpts, *parts: str) -> None:
        self._conf = conf
        self._readiness = Readiness(*parts)
        self.ready = self._readiness.ready
        self.heartbeats = Heartbeats()
        self._metrics: Endpoint | None = None

    @abc.abstractmethod
    def start(self) -> None:
        """Start all threads; other services may be unavailable."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Stop all threads."""

    def wait(self, signals: Signals) -> None:
        """Wait for SIGTERM; reload the configuration on SIGHUP, write a report on SIGUSR2."""
        interval = systemd.watchdog_interval()
        # Twice as often as the watchdog requires.
        timeout = interval and interval / 2
        while (number := signals.wait(timeout)) != END:
            if number is None:
                self._notify_watchdog()
            elif number == RELOAD:
                self.reload()
            elif number == REPORT:
                report.write(self._conf, Path(sys.argv[0]).name)

    def _notify_watchdog(self) -> None:
        """Notify the service manager that the service is alive, unless a heartbeat is overdue."""
        if overdue := self.heartbeats.overdue():
            LOG.critical(
                "Threads make no progress: %s; withholding the watchdog signal, so that systemd "
                "restarts the service",
                ", ".join(overdue),
            )
        else:
            systemd.notify(systemd.ALIVE)

    def reload(self) -> None:
        """Put changed mutable options in force: all of them or, after an error, none."""
        try:
            self._conf.put_in_force(self._conf.candidate(), self.read_options)
        except exception.ConfigInvalid as error:
            LOG.error("Configuration reload failed: %s; keeping the previous settings", error)
            return
        except Exception as error:  # noqa: BLE001
            # The error's text may quote a password.
            fault = f"a fault of Kongming, please report this {type(error).__name__}"
            LOG.error("Configuration reload failed: %s; keeping the previous settings", fault)
            return
        LOG.info("Configuration reloaded: mutable options are in force")
        self._conf.warn_unread()
        self.options_changed()

    def read_options(self) -> None:  # noqa: B027
        """Read settings from the options.

        :raises ConfigInvalid: if they can't be used; the previous ones stay in force.
        """

    def options_changed(self) -> None:  # noqa: B027
        """Put the settings in force after a reload."""

    def open_metrics(self, make: Callable[[], list[Collector]]) -> None:
        """Bind the port of the metrics, if they are enabled.

        :param make: returns the collectors.
        :raises ConfigInvalid: if the options can't be used.
        """
        options = self._conf.metrics
        if options.enabled:
            # Imported here, as it costs memory that services without metrics do not need.
            from kongming.metrics.endpoint import Endpoint

            self._metrics = Endpoint(options.listen_address, options.listen_port, make())

    def start_metrics(self) -> None:
        """Start to serve the metrics, if they are enabled."""
        if self._metrics is not None:
            self._metrics.start()

    def stop_metrics(self) -> None:
        """Stop serving the metrics."""
        if self._metrics is not None:
            self._metrics.stop()
