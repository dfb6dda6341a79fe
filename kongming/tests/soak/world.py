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

"""A cloud that exists in its notifications only, and the last event that counts of each instance.

It knows nothing of Kongming: what an event requests is written beside it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
import random
import time
import uuid

HOST, OTHER, API = "compute-1", "compute-2", "controller"

#: Possible requests, by their outcome.
PLACED, INVALID, UNKNOWN_CPU, NOTHING = "placed", "request_invalid", "cpu_unknown", "nothing"
_KINDS = [PLACED, INVALID, UNKNOWN_CPU, NOTHING]
_OF_TEN = [7, 1, 1, 1]

#: Events, each with the payload's host and the host of its publisher.
EventKind = tuple[str, str | None, str]
CREATED: EventKind = ("instance.create.end", HOST, HOST)
POWERED_ON: EventKind = ("instance.power_on.end", HOST, HOST)
REBOOTED: EventKind = ("instance.reboot.end", HOST, HOST)
MIGRATED_AWAY: EventKind = ("instance.live_migration_post.end", HOST, HOST)
MIGRATED_HERE: EventKind = ("instance.live_migration_post_dest.end", HOST, HOST)
DELETED: EventKind = ("instance.delete.end", HOST, HOST)
STAYS: list[EventKind] = [
    ("instance.update", HOST, API),
    ("instance.update", HOST, HOST),
    ("instance.rebuild.end", HOST, HOST),
    ("instance.resize_finish.end", HOST, HOST),
    POWERED_ON,
    REBOOTED,
]
LEAVES: list[EventKind] = [
    ("instance.update", OTHER, API),
    ("instance.resize_finish.end", OTHER, OTHER),
    ("instance.rebuild.end", HOST, OTHER),
    ("instance.shelve_offload.end", None, HOST),
    ("instance.soft_delete.end", HOST, HOST),
    MIGRATED_AWAY,
]
COMES: list[EventKind] = [
    ("instance.unshelve.end", HOST, HOST),
    ("instance.restore.end", HOST, HOST),
    ("instance.rebuild.end", OTHER, HOST),
    ("instance.resize_finish.end", HOST, HOST),
    MIGRATED_HERE,
]
STAYS_ELSEWHERE: list[EventKind] = [
    ("instance.create.end", OTHER, OTHER),
    ("instance.update", OTHER, API),
    ("instance.reboot.end", OTHER, OTHER),
    ("instance.live_migration_post.end", OTHER, OTHER),
    ("instance.delete.end", OTHER, OTHER),
]
MEANINGLESS: list[EventKind] = [
    ("instance.reboot.start", HOST, HOST),
    ("instance.power_off.start", HOST, HOST),
    ("instance.resize.end", HOST, HOST),
]


@dataclass(frozen=True)
class Ask:
    """What an instance's metadata requests.

    :ivar kind: its outcome.
    :ivar pins: the CPU of each vCPU.
    :ivar quota_us: how much of 100 ms each vCPU may use; 0 for no limit.
    """

    kind: str
    pins: tuple[int, ...] = ()
    quota_us: int = 0

    def metadata(self) -> dict[str, str]:
        """Return it as Nova has it."""
        if self.kind == NOTHING:
            return {"role": "db"}
        if self.kind == INVALID:
            return {"kongming-vcpu-pinning": "1,x"}
        pins = ";".join(f"{vcpu}:{cpu}" for vcpu, cpu in enumerate(self.pins))
        quota = {"kongming-vcpu-quota": f"{self.quota_us}/100000"} if self.quota_us else {}
        return {"kongming-vcpu-pinning": pins, **quota}


@dataclass
class Instance:
    """An instance, and the last event that counts of it.

    :ivar real: whether a QEMU runs it while it is here; of others there are only events.
    :ivar asked: what is requested for it here; None while it is elsewhere.
    :ivar publisher: that of the last event.
    """

    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    real: bool = False
    asked: Ask | None = None
    publisher: str = ""


@dataclass(frozen=True)
class Event:
    """One notification."""

    name: str
    host: str | None
    publisher: str
    instance_uuid: str
    metadata: dict[str, str]
    sent_at: float
    message_id: str


class World:
    """Instances and their events, in the order in which they are to be published.

    :param cpus: those that may be requested.
    :param real: how many instances are run by a QEMU; these stay here unless
        :meth:`leave` is called.
    :param simulated: of how many there are only events; one in five is here.
    :ivar in_order: whether all comes in the order in which it was sent, and once.
    """

    def __init__(
        self, chance: random.Random, cpus: list[int], *, real: int, simulated: int
    ) -> None:
        self.in_order = False
        self._chance = chance
        self._cpus = cpus
        self.real = [Instance(real=True) for _ in range(real)]
        self._here = [Instance() for _ in range(simulated // 5)]
        self._elsewhere = [Instance() for _ in range(simulated - len(self._here))]
        # Of each there is one event only, until it was observed that this one came.
        self._newcomers: list[Instance] = []
        self._leaving: list[Instance] = []
        # Events that the next one of the same instance overtakes.
        self._held: dict[str, Event] = {}
        self._lately: deque[tuple[Instance, Event]] = deque(maxlen=200)

    def expected(self) -> dict[str, Instance]:
        """Return the instances that are here, by UUID."""
        everywhere = (self.real, self._here, self._newcomers)
        return {each.uuid: each for group in everywhere for each in group if each.asked}

    def begin(self) -> Iterator[Event]:
        """Yield the first event of each instance that is here."""
        for instance in (*self.real, *self._here):
            yield from self._emit(instance, CREATED, self._ask())

    def happen(self) -> Iterator[Event]:
        """Yield the events of what happens next, anywhere."""
        number = self._chance.randrange(1000)
        if number < 40:
            yield from self._of_real(self._chance.choice(self.real))
        elif number < 240:
            yield from self._of_simulated(self._chance.randrange(len(self._here)))
        elif number < 260:
            self._newcomers.append(Instance())
            # Overtaken or overtaking it would not be the only one.
            yield self._event(self._newcomers[-1], CREATED, self._ask(PLACED))
        elif number < 280 and self._leaving:
            yield from self._emit(self._leaving.pop(), DELETED, None)
        else:
            yield from self._of_other(self._chance.randrange(len(self._elsewhere)))
        if self._lately and not self.in_order and self._chance.randrange(100) == 0:
            instance, event = self._chance.choice(self._lately)
            # Only the events of one publisher can be put in order.
            if event.publisher == instance.publisher:
                yield event

    def leave(self, instance: Instance, kind: EventKind) -> Iterator[Event]:
        """Yield the events of a real instance that has left; its guest is gone already."""
        yield from self._emit(instance, kind, None)

    def come(self, instance: Instance, kind: EventKind) -> Iterator[Event]:
        """Yield the events of a real instance that is here again; its guest runs already."""
        yield from self._emit(instance, kind, self._ask())

    def replace(self, instance: Instance) -> Instance:
        """Return another real instance in place of one that was deleted."""
        self.real[self.real.index(instance)] = new = Instance(real=True)
        return new

    def finish(self) -> Iterator[Event]:
        """Yield the events that were held back, and let all newcomers of before leave."""
        while self._leaving:
            yield from self._emit(self._leaving.pop(), DELETED, None)
        yield from list(self._held.values())
        self._held.clear()

    def newcomers_were_observed(self) -> None:
        """Have those that came since the last time leave again, by and by."""
        self._leaving, self._newcomers = self._newcomers, []

    def _of_real(self, instance: Instance) -> Iterator[Event]:
        # One that is elsewhere now has events when it comes back.
        if instance.asked is not None:
            yield from self._stay(instance)

    def _of_simulated(self, place: int) -> Iterator[Event]:
        instance = self._here[place]
        number = self._chance.randrange(100)
        if number < 2:
            yield from self._emit(instance, DELETED, None)
            self._here[place] = new = Instance()
            yield from self._emit(new, CREATED, self._ask())
        elif number < 6:
            yield from self._emit(instance, self._chance.choice(LEAVES), None)
            # As many come as leave.
            other = self._chance.randrange(len(self._elsewhere))
            self._here[place], self._elsewhere[other] = self._elsewhere[other], instance
            yield from self._emit(self._here[place], self._chance.choice(COMES), self._ask())
        else:
            yield from self._stay(instance)

    def _of_other(self, place: int) -> Iterator[Event]:
        kind = self._chance.choice(STAYS_ELSEWHERE)
        yield from self._emit(self._elsewhere[place], kind, None)
        if kind[0] == DELETED[0]:
            self._elsewhere[place] = Instance()

    def _stay(self, instance: Instance) -> Iterator[Event]:
        if self._chance.randrange(8) == 0:
            yield self._event(
                instance, self._chance.choice(MEANINGLESS), self._ask(), counts=False
            )
        else:
            yield from self._emit(instance, self._chance.choice(STAYS), self._ask())

    def _emit(self, instance: Instance, kind: EventKind, ask: Ask | None) -> Iterator[Event]:
        """Yield an event that counts, and the one before it that it overtakes, or hold it back."""
        event = self._event(instance, kind, ask)
        held = self._held.pop(instance.uuid, None)
        if held is not None and (self.in_order or held.publisher != event.publisher):
            yield held
            held = None
        if held is None and not self.in_order and self._chance.randrange(50) == 0:
            self._held[instance.uuid] = event
            return
        yield event
        if held is not None:
            yield held

    def _event(
        self, instance: Instance, kind: EventKind, ask: Ask | None, *, counts: bool = True
    ) -> Event:
        if counts:
            instance.asked, instance.publisher = ask, kind[2]
        name, host, publisher = kind
        metadata = (ask or self._ask()).metadata()
        sent_at = time.time()
        message_id = str(uuid.uuid4())
        event = Event(name, host, publisher, instance.uuid, metadata, sent_at, message_id)
        self._lately.append((instance, event))
        return event

    def _ask(self, kind: str = "") -> Ask:
        kind = kind or self._chance.choices(_KINDS, _OF_TEN)[0]
        if kind == UNKNOWN_CPU:
            return Ask(kind, (self._cpus[0], 8191))
        if kind != PLACED:
            return Ask(kind)
        pins = (self._chance.choice(self._cpus), self._chance.choice(self._cpus))
        return Ask(kind, pins, self._chance.choice([0, 0, 30_000, 60_000]))
