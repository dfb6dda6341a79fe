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

"""What every service has: it says when it is ready, serves, and takes its options anew."""

from __future__ import annotations

from collections.abc import Callable
import logging
import signal
import socket
from typing import TYPE_CHECKING

from oslo_config import cfg
from oslo_service import service

from kongming import exception
from kongming.readiness import Readiness
from kongming.runtime import systemd
from kongming.runtime.heartbeats import Heartbeats

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from kongming.metrics.endpoint import Endpoint

LOG = logging.getLogger(__name__)


class Service(service.ServiceBase):  # type: ignore[misc]
    """One service in one process.

    :param parts: what has to be reached for the first time to be ready.
    :ivar heartbeats: the threads that are to get on; a service manager that watches ends
        the service, and starts it again, if one does not.
    """

    def __init__(self, conf: cfg.ConfigOpts, *parts: str) -> None:
        self._conf = conf
        self._readiness = Readiness(*parts)
        self.ready = self._readiness.ready
        self.heartbeats = Heartbeats()
        self._metrics: Endpoint | None = None

    def wait(self) -> None:
        """Serve for ever, taking the options anew on each SIGHUP."""
        # A signal that comes just before a lock's acquisition does not end
        # it, and its handler waits for ever: what wakes us is a byte on a
        # socket, written the moment that a signal comes.
        wakeup, written = socket.socketpair()
        written.setblocking(False)
        signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGHUP, lambda _number, _frame: None)
        interval = systemd.watchdog_interval()
        # Twice as often as it is waited for.
        wakeup.settimeout(interval and interval / 2)
        while True:
            try:
                signals = wakeup.recv(256)
            except TimeoutError:
                self._tell_watchdog()
                continue
            if signal.SIGHUP in signals:
                self.reset()

    def _tell_watchdog(self) -> None:
        """Tell the service manager that all is well, if it is."""
        if overdue := self.heartbeats.overdue():
            LOG.critical(
                "Not getting on: %s; the service manager is not told that all is well, so that "
                "it starts the service again",
                ", ".join(overdue),
            )
        else:
            systemd.notify(systemd.ALIVE)

    def reset(self) -> None:
        """Take the mutable options anew; nothing else is disturbed."""
        problem = self._mutate()
        if problem is None:
            LOG.info("Configuration taken anew: mutable options are in force")
            self.options_changed()
        else:
            LOG.error("Configuration not taken anew, the former stays: %s", problem)

    def read_options(self) -> None:
        """Read what is not read at each use.

        :raises ConfigInvalid: if that can't be used: the former stays.
        """

    def options_changed(self) -> None:
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

    def _mutate(self) -> Exception | None:
        try:
            self._conf.mutate_config_files()
            self.read_options()
        except (cfg.Error, OSError, exception.ConfigInvalid) as error:
            return error
        return None
