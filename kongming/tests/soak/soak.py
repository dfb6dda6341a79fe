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

"""A soak: very many events on a host that much happens to, compared with the last events.

It goes by rounds. In each of them events come while everything happens to the host that can;
at the end all is as it should be, so the host must soon be as the last events request.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
import random
import re
import statistics
import time

from kongming.tests.soak.comparison import differences
from kongming.tests.soak.host import (
    AHEAD,
    BEHIND,
    BROKER,
    DEAF,
    DISK,
    EXCHANGE,
    HUNG,
    KILLED,
    LIBVIRTD,
    QUEUE,
    Host,
)
from kongming.tests.soak.publisher import BATCH, Publisher
from kongming.tests.soak.world import (
    CREATED,
    DELETED,
    MIGRATED_AWAY,
    MIGRATED_HERE,
    POWERED_ON,
    Event,
    World,
)
from kongming.tests.testbed import threads
from kongming.tests.testbed.broker import Broker
from kongming.tests.testbed.clock import Clock
from kongming.tests.testbed.disk import small_disk
from kongming.tests.testbed.libvirtd import Libvirtd
from kongming.tests.testbed.process import wait_until

#: So many events may wait in the queue while the service takes them.
BACKLOG_MAX = 2000
SAMPLES = 100
TIMEOUT_S = 120
_LONGEST = 2000
_MOVES = 20


@dataclass(frozen=True)
class Size:
    """How large a soak is.

    :ivar real: guests that a QEMU runs.
    :ivar simulated: guests that there are only events of.
    """

    events: int
    rounds: int
    real: int
    simulated: int

    @property
    def disk_mib(self) -> int:
        """What is kept of so many events, with room to spare."""
        return 32 + self.events // 2000


def soak(broker: Broker, libvirtd: Libvirtd, root: Path, size: Size, seed: int) -> Soak:
    """Run a soak and return its figures.

    :raises AssertionError: something is not as the last events request.
    """
    chance = random.Random(seed)
    host = Host(broker, libvirtd, root, chance, Clock(root))
    world = World(chance, sorted(threads.online_cpus()), real=size.real, simulated=size.simulated)
    run = Soak(size, host, world, Publisher(broker.transport_url(), EXCHANGE), chance)
    with small_disk(host.daemon.state_path, size.disk_mib), host.daemon:
        try:
            run.run()
        except BaseException as error:
            error.add_note(f"seed {seed}; the service's log is {host.daemon.process.log}")
            raise
        finally:
            host.end_guests()
    return run


class Soak:
    """One run.

    :ivar happened: how often each thing happened.
    :ivar pss_mb: samples of the service's memory, at equal distances.
    """

    def __init__(
        self, size: Size, host: Host, world: World, publisher: Publisher, chance: random.Random
    ) -> None:
        self._size = size
        self._host = host
        self._world = world
        self._publisher = publisher
        self._chance = chance
        self._active: dict[str, AbstractContextManager[None]] = {}
        self._events = 0
        # The last events of each instance, in the order in which they were published.
        self._published: dict[str, deque[str]] = {}
        self._began = self._settling_s = 0.0
        self.happened: Counter[str] = Counter()
        self.pss_mb: list[float] = []

    def run(self) -> None:
        """Go through all rounds, and end the service.

        It is killed in the first rounds only, so that later its memory can be measured.
        """
        for instance in self._world.real:
            self._host.start_guest(instance)
        self._began = time.monotonic()
        self._publish(self._world.begin())
        for number in range(self._size.rounds):
            whatever = [BROKER, LIBVIRTD, DISK]
            if number < self._size.rounds // 4 or number == 0:
                whatever += [KILLED] * 4
            self._world.in_order = number % 2 == 0
            try:
                self._round(whatever, [BEHIND, HUNG, AHEAD])
            finally:
                for what in list(self._active):
                    self._end(what)
            self._settle()
        self._check_the_end()

    def memory_growth_mb(self) -> float:
        """Return by how much memory grew in the second half, from its first to its last fifth."""
        half = self.pss_mb[len(self.pss_mb) // 2 :]
        fifth = max(1, len(half) // 5)
        return statistics.median(half[-fifth:]) - statistics.median(half[:fifth])

    def figures(self) -> str:
        """Return a table of what happened."""
        seconds = time.monotonic() - self._began
        rows: dict[str, object] = {
            "events": f"{self._events:,}",
            "events sent again": f"{self._publisher.again:,}",
            "seconds": f"{seconds:.0f}, {self._settling_s:.0f} of them to settle",
            "events a second": f"{self._events / seconds:.0f}",
            **self.happened,
            "memory, Pss in MB": " ".join(f"{mb:.1f}" for mb in self.pss_mb[:: SAMPLES // 10]),
            "its growth in the second half": f"{self.memory_growth_mb():+.1f} MB",
        }
        return "\n".join(f"{name:30} {value}" for name, value in rows.items())

    def _round(self, apart: list[str], spans: list[str]) -> None:
        """Publish the events of a round.

        :param apart: what happens, one after another.
        :param spans: what happens besides, at any time.
        """
        events = self._size.events // self._size.rounds
        timeline: list[tuple[int, Callable[[], None]]] = []
        self._chance.shuffle(apart)
        share = events // len(apart)
        for place, what in enumerate(apart):
            begin = place * share + self._chance.randrange(share // 2)
            end = begin + self._chance.randrange(min(_LONGEST, share // 2))
            timeline += [(begin, partial(self._begin, what)), (end, partial(self._end, what))]
        for place, what in enumerate(spans):
            begin = events * (2 * place + 1) // (2 * len(spans) + 1)
            begin += self._chance.randrange(events // 10)
            end = begin + self._chance.randrange(events // 10, events // 4)
            timeline += [(begin, partial(self._begin, what)), (end, partial(self._end, what))]
        moves = self._chance.sample(range(events), min(_MOVES, events // 100))
        timeline += [(each, self._move) for each in moves]
        timeline.sort(key=lambda entry: entry[0])
        first = self._events
        while (number := self._events - first) < events:
            while timeline and timeline[0][0] <= number:
                timeline.pop(0)[1]()
            self._publish(self._world.happen())

    def _publish(self, events: Iterable[Event]) -> None:
        for event in events:
            self._publisher.publish(event)
            self._events += 1
            published = self._published.setdefault(event.instance_uuid, deque(maxlen=30))
            published.append(f"    {self._events}: {event}; {', '.join(self._active)}")
            if self._events % BATCH == 0 and not DEAF & self._active.keys():
                wait_until(self._keeps_up, TIMEOUT_S, "the service takes its events")
            if self._events % (self._size.events // SAMPLES) == 0 and KILLED not in self._active:
                self.pss_mb.append(_pss_mb(self._host.daemon.process.pid))

    def _keeps_up(self) -> bool:
        return self._publisher.flush() and self._publisher.is_taken(QUEUE, but=BACKLOG_MAX)

    def _begin(self, what: str) -> None:
        if what == HUNG and LIBVIRTD in self._active:
            return
        here = [each.uuid for each in self._world.real if each.asked is not None]
        self._active[what] = context = self._host.disturbed(what, here)
        context.__enter__()
        self.happened[what] += 1

    def _end(self, what: str) -> None:
        context = self._active.pop(what, None)
        if context is not None:
            context.__exit__(None, None, None)

    def _move(self) -> None:
        """Have a guest leave, come back, start again, or another one take its place."""
        instance = self._chance.choice(self._world.real)
        if LIBVIRTD in self._active or instance.uuid in self._host.hung:
            return
        if instance.asked is None:
            self._host.start_guest(instance)
            self._publish(self._world.come(instance, MIGRATED_HERE))
            return
        self._host.end_guest(instance)
        self.happened["guests' ends"] += 1
        what = self._chance.choice([POWERED_ON, MIGRATED_AWAY, DELETED])
        if what != POWERED_ON:
            self._publish(self._world.leave(instance, what))
        if what == DELETED:
            instance = self._world.replace(instance)
        if what != MIGRATED_AWAY:
            self._host.start_guest(instance)
            self._publish(self._world.come(instance, CREATED if what == DELETED else POWERED_ON))

    def _settle(self) -> None:
        """Wait until all was received, and is as the last events request."""
        began = time.monotonic()
        self._publish(self._world.finish())
        wait_until(self._publisher.flush, TIMEOUT_S, "the broker has all events")
        wait_until(lambda: self._publisher.is_taken(QUEUE), TIMEOUT_S, "all events are taken")
        wait_until(lambda: self._host.unacknowledged() == 0, TIMEOUT_S, "all are acknowledged")
        try:
            wait_until(
                lambda: not self._differences(), TIMEOUT_S, "all is as the last events request"
            )
        except TimeoutError as error:
            self._explain(error)
            raise
        self._published.clear()
        self._world.newcomers_were_observed()
        self.happened["comparisons"] += 1
        self._settling_s += time.monotonic() - began

    def _differences(self) -> dict[str, str]:
        return differences(self._host.kept(), self._world.expected())

    def _explain(self, error: TimeoutError) -> None:
        """Add what is different, and its last events."""
        different = self._differences()
        error.add_note(
            f"event {self._events}: {len(different)} instances are not as they should be"
        )
        for uuid, problem in [*different.items()][:10]:
            error.add_note("\n".join([f"{uuid}: {problem}", *self._published.get(uuid, [])]))

    def _check_the_end(self) -> None:
        assert self._host.daemon.stop() == 0
        with self._host.daemon.process.log.open(errors="replace") as log:
            for line in log:
                assert "Traceback" not in line, self._host.daemon.process.log
                if found := re.search(r" (ERROR|WARNING) ", line):
                    self.happened[f"log lines of {found[1]}"] += 1


def _pss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise LookupError(f"the kernel does not show the memory of process {pid}")
