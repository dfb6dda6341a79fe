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

"""A host with the real service, a real libvirtd and real guests, and what can happen to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
import random
import sqlite3
from typing import Any, NamedTuple

import libvirt

from kongming.tests.soak.world import HOST, Instance
from kongming.tests.testbed.broker import Broker
from kongming.tests.testbed.clock import Clock
from kongming.tests.testbed.daemon import Daemon
from kongming.tests.testbed.disk import fill
from kongming.tests.testbed.guest import destroy, start_guest
from kongming.tests.testbed.hang import hold_monitor, hung
from kongming.tests.testbed.libvirtd import Libvirtd
from kongming.tests.testbed.process import patience

VCPUS = 2
UNIT = Path("etc/systemd/kongming-notification-handler.service")
EXCHANGE = "nova-soak"
QUEUE = f"kongming.{HOST}"
# What waits in a queue outlives the broker. A failure is soon tried again, so that the end
# of a round needs not be waited for.
OPTIONS = f"""\
[notification_handler]
exchange = {EXCHANGE}
[oslo_messaging_rabbit]
amqp_durable_queues = true
[executor]
retry_interval_max = 5
"""

#: What can happen, by name.
KILLED, BROKER, LIBVIRTD, DISK = "kill -9", "broker restarts", "libvirtd restarts", "full disks"
HUNG, AHEAD, BEHIND = "hung QEMUs", "clock ahead", "clock behind"
#: In these nothing is taken from the queue.
DEAF = frozenset({KILLED, BROKER, DISK})

_STEPS_S = (5, 60, 3600, 86_400)
_HUNG_MAX = 6

_KEPT = "SELECT instance_uuid, requested, accepted, status, reason FROM instance"


def _unit_environment() -> dict[str, str]:
    """Read what the service's unit sets."""
    lines = (line.partition("Environment=") for line in UNIT.read_text().splitlines())
    return dict(setting.split("=", 1) for before, _, setting in lines if setting and not before)


class Row(NamedTuple):
    """What is kept of an instance; allocations are JSON."""

    requested: str | None
    accepted: str | None
    status: str
    reason: str


class Host:
    """One compute host.

    :param clock: the service's.
    :ivar hung: the guests that hang now.
    """

    def __init__(
        self,
        broker: Broker,
        libvirtd: Libvirtd,
        root: Path,
        chance: random.Random,
        clock: Clock,
    ) -> None:
        self._broker = broker
        self._libvirtd = libvirtd
        self._chance = chance
        self._clock = clock
        self.hung: frozenset[str] = frozenset()
        self.daemon = Daemon(
            root / HOST,
            transport_url=broker.transport_url(),
            connection_uri=libvirtd.uri,
            host=HOST,
            options=OPTIONS,
            env=clock.environment | _unit_environment(),
        )

    def start_guest(self, instance: Instance) -> None:
        """Start the guest of an instance."""
        with self._connected() as connection:
            name = f"kongming-soak-{instance.uuid[:8]}"
            start_guest(connection, name, uuid=instance.uuid, vcpus=VCPUS)

    def end_guest(self, instance: Instance) -> None:
        """End the guest of an instance."""
        with self._connected() as connection:
            destroy(connection.lookupByUUIDString(instance.uuid))

    def end_guests(self) -> None:
        """End all guests."""
        with self._connected() as connection:
            for domain in connection.listAllDomains():
                destroy(domain)

    def disturbed(self, what: str, running: list[str]) -> AbstractContextManager[None]:
        """Have something happen to the host, until the context is left.

        :param running: the guests that may hang.
        """
        if what == HUNG:
            chosen = self._chance.sample(running, min(_HUNG_MAX, len(running) // 2))
            return self._hung(*chosen)
        return self._disturbances()[what]()

    def unacknowledged(self) -> int:
        """Count the events that the service has and has not acknowledged."""
        return self._broker.queues()[QUEUE].unacked

    def kept(self) -> dict[str, Row]:
        """Read what the service keeps."""
        file = self.daemon.state_path / "allocations.sqlite"
        db = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
        try:
            return {row[0]: Row(*row[1:]) for row in db.execute(_KEPT)}
        finally:
            db.close()

    def _disturbances(self) -> dict[str, Callable[[], AbstractContextManager[None]]]:
        return {
            KILLED: self._killed,
            BROKER: self._broker_restarted,
            LIBVIRTD: self._libvirtd_restarted,
            DISK: self._disk_full,
            AHEAD: partial(self._clock_stepped, 1),
            BEHIND: partial(self._clock_stepped, -1),
        }

    @contextmanager
    def _killed(self) -> Iterator[None]:
        self.daemon.kill()
        try:
            yield
        finally:
            self.daemon.start()

    @contextmanager
    def _broker_restarted(self) -> Iterator[None]:
        self._chance.choice([self._broker.stop, self._broker.kill])()
        try:
            yield
        finally:
            self._broker.start()

    @contextmanager
    def _libvirtd_restarted(self) -> Iterator[None]:
        self._chance.choice([self._libvirtd.stop, self._libvirtd.kill])()
        try:
            yield
        finally:
            self._libvirtd.start()

    @contextmanager
    def _disk_full(self) -> Iterator[None]:
        filler = self.daemon.state_path / "filler"
        fill(filler)
        try:
            yield
        finally:
            filler.unlink()

    @contextmanager
    def _clock_stepped(self, sign: int) -> Iterator[None]:
        self._clock.set(sign * self._chance.choice(_STEPS_S))
        try:
            yield
        finally:
            self._clock.set(0)

    @contextmanager
    def _hung(self, *instance_uuids: str) -> Iterator[None]:
        self.hung = frozenset(instance_uuids)
        try:
            with hung(*instance_uuids):
                # Somebody sends one in two of them a command, and so keeps others from it.
                callers = [hold_monitor(self._libvirtd.uri, each) for each in instance_uuids[::2]]
                yield
            for caller in callers:
                caller.join(30 * patience())
        finally:
            self.hung = frozenset()

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        connection = libvirt.open(self._libvirtd.uri)
        try:
            yield connection
        finally:
            connection.close()
