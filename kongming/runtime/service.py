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

"""What every service has: it says when it is ready, serves, and reloads its configuration."""

from __future__ import annotations

import abc
from collections.abc import Callable
import logging
from typing import TYPE_CHECKING, Any

from oslo_config import cfg

from kongming import exception
from kongming.runtime import systemd
from kongming.runtime.heartbeats import Heartbeats
from kongming.runtime.readiness import Readiness
from kongming.runtime.signals import END, RELOAD, Signals

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from kongming.metrics.endpoint import Endpoint

LOG = logging.getLogger(__name__)


class ReloadableOpts(cfg.ConfigOpts):
    """Options of which a reload takes all that changed, or nothing."""

    @abc.abstractmethod
    def candidate(self) -> Any:
        """Read and check the files as they are now, without an effect on the options.

        :raises ConfigInvalid: if they can't be used.
        """

    @abc.abstractmethod
    def put_in_force(self, checked: Any, then: Callable[[], None]) -> None:
        """Take the mutable options of a candidate.

        :param then: reads what depends on options; may raise ConfigInvalid.
        :raises ConfigInvalid: if they can't be used; the previous options stay then.
        """

    @abc.abstractmethod
    def tell_unread(self) -> None:
        """Log the settings that nothing reads."""


class Service(abc.ABC):
    """One service in one process.

    :param parts: what has to be reached for the first time to be ready.
    :ivar heartbeats: the threads that are to get on; a service manager that watches ends
        the service, and starts it again, if one does not.
    """

    def __init__(self, conf: ReloadableOpts, *parts: str) -> None:
        self._conf = conf
        self._readiness = Readiness(*parts)
        self.ready = self._readiness.ready
        self.heartbeats = Heartbeats()
        self._metrics: Endpoint | None = None

    @abc.abstractmethod
    def start(self) -> None:
        """Begin; return at once, whether all others are there or not."""

    @abc.abstractmethod
    def stop(self) -> None:
        """End what has begun."""

    def wait(self, signals: Signals) -> None:
        """Serve until a signal ends it, reloading the configuration on each SIGHUP."""
        interval = systemd.watchdog_interval()
        # Twice as often as it is waited for.
        timeout = interval and interval / 2
        while (number := signals.wait(timeout)) != END:
            if number is None:
                self._tell_watchdog()
            elif number == RELOAD:
                self.reset()

    def _tell_watchdog(self) -> None:
        """Tell the service manager that all is well, if it is."""
        if overdue := self.heartbeats.overdue():
            LOG.critical(
                "Threads make no progress: %s; withholding the watchdog signal, so that systemd "
                "restarts the service",
                ", ".join(overdue),
            )
        else:
            systemd.notify(systemd.ALIVE)

    def reset(self) -> None:
        """Take the mutable options anew, all of them or none; nothing else is disturbed."""
        try:
            self._conf.put_in_force(self._conf.candidate(), self.read_options)
        except exception.ConfigInvalid as error:
            LOG.error("Configuration reload failed: %s; keeping the previous settings", error)
            return
        except Exception as error:  # noqa: BLE001
            # Its text may quote a password.
            fault = f"a fault of Kongming, please report this {type(error).__name__}"
            LOG.error("Configuration reload failed: %s; keeping the previous settings", fault)
            return
        LOG.info("Configuration reloaded: mutable options are in force")
        self._conf.tell_unread()
        self.options_changed()

    def read_options(self) -> None:  # noqa: B027
        """Read what is not read at each use.

        :raises ConfigInvalid: if that can't be used: the former stays.
        """

    def options_changed(self) -> None:  # noqa: B027
        """Do what new options make necessary."""

    def open_metrics(self, make: Callable[[], list[Collector]]) -> None:
        """Take the port of the metrics, if they are wanted.

        :param make: gives what is told there.
        :raises ConfigInvalid: if the options can't be used.
        """
        options = self._conf.metrics
        if options.enabled:
            # Imported here: a service without metrics does not pay for them.
            from kongming.metrics.endpoint import Endpoint

            self._metrics = Endpoint(options.listen_address, options.listen_port, make())

    def start_metrics(self) -> None:
        """Begin to answer Prometheus, if that is wanted."""
        if self._metrics is not None:
            self._metrics.start()

    def stop_metrics(self) -> None:
        """Answer Prometheus no more."""
        if self._metrics is not None:
            self._metrics.stop()
