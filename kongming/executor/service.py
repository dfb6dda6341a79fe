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

"""The base of the services of a compute host: a service with an executor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kongming.configuration.rules import read_rules
from kongming.executor.executor import Executor
from kongming.executor.settings import Settings
from kongming.runtime.service import Service

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from kongming.configuration.configuration import Configuration

_CONNECTED = "libvirt is available"


class HostService(Service):
    """A service with an executor.

    :param parts: what has to be available, besides libvirt, to be ready.
    """

    def __init__(
        self,
        conf: Configuration,
        *parts: str,
        on_pass: Callable[[str], None] = lambda _instance_uuid: None,
        on_unknown_guest: Callable[[str], None] = lambda _instance_uuid: None,
        request_lookup: Callable[[str], object] = lambda _instance_uuid: None,
    ) -> None:
        """Build the executor.

        :raises StoreUnavailable: if the state path can't be used.
        :raises ConfigInvalid: if the guard's options can't be read.
        """
        super().__init__(conf, *parts, _CONNECTED)
        self.read_options()
        self._executor = Executor(
            host=conf.host,
            state_path=Path(conf.state_path),
            connection_uri=conf.libvirt.connection_uri,
            keepalive=(conf.libvirt.keepalive_interval, conf.libvirt.keepalive_count),
            workers=conf.executor.workers,
            settings=self._settings,
            heartbeats=self.heartbeats,
            on_connect=self.connected,
            on_pass=on_pass,
            on_unknown_guest=on_unknown_guest,
            request_lookup=request_lookup,
        )

    def connected(self) -> None:
        """Note that libvirt has become available; must not block."""
        self._readiness.reached(_CONNECTED)

    def read_options(self) -> None:
        """Read the settings of the executor.

        :raises ConfigInvalid: if the operator's rules can't be used.
        """
        options = self._conf.executor
        self._settings = Settings(
            rules=read_rules(self._conf),
            retry_max_s=options.retry_interval_max,
            check_interval_s=options.check_interval,
            history_days=options.history_days,
        )

    def options_changed(self) -> None:
        """Put the settings in force, and check all guests: the rules may be different."""
        self._executor.settings = self._settings
        self._executor.check_all()

    def executor_collector(self) -> Collector:
        """Return the collector of the executor's metrics."""
        from kongming.executor.metrics import ExecutorCollector

        return ExecutorCollector(self._executor)
