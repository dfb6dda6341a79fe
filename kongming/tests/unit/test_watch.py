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

"""The watch: what is not announced is noticed at a tick, and all is checked at an interval."""

import threading
import time

import pytest

from kongming import exception
from kongming.allocation.cpuset import CpuSet
from kongming.executor import watch as module
from kongming.executor.settings import Settings
from kongming.executor.watch import Watch
from kongming.runtime.clock import ClockWatch, Steps
from kongming.runtime.heartbeats import Heartbeats
from kongming.tests.testbed.process import patience

DAY_S = 86_400
SOME, ALL = CpuSet([0, 1]), CpuSet(range(4))


class World:
    """All that a watch checks, and the instances that it wakes."""

    def __init__(self):
        self.online = ALL
        self.transitions, self.resized, self.by_tools = [], [], []
        self.interval = 0.0
        self.woken, self.checked, self.offline, self.purged = [], [], [], []
        self.ticks = 0
        self.ticked = threading.Event()
        self.watch = Watch(
            self,
            wake=self.woken.extend,
            check=self.checked.append,
            online_cpus=lambda: self.online,
            on_offline=self.offline.append,
            windows=self,
            threads=self,
            settings=lambda: Settings(check_interval_s=self.interval, history_days=3),
            heartbeats=Heartbeats(),
        )
        self.begin = time.monotonic()

    def tick(self, after=0.0):
        """Tick ``after`` seconds after the beginning; return the instances that were woken."""
        self.woken.clear()
        self.watch._tick(self.begin + after)
        return list(self.woken)

    # The store.
    def instances(self):
        return ["held"]

    def purge(self, before):
        self.purged.append(before)

    def take_pending(self):
        return self.by_tools

    # The windows, and the guests' threads.
    def due(self):
        self.ticks += 1
        if self.ticks == 3:
            self.ticked.set()
        if isinstance(self.transitions, Exception):
            raise self.transitions
        return self.transitions

    def changed(self):
        return self.resized


@pytest.fixture
def world():
    return World()


def test_each_instance_that_needs_a_pass_is_woken(world):
    assert world.tick() == []
    world.transitions, world.resized, world.by_tools = ["w"], ["r"], ["t"]
    assert world.tick() == ["w", "r", "t"]


@pytest.mark.parametrize(
    ("before", "after", "offline"),
    [
        (ALL, SOME, [CpuSet([2, 3])]),
        (SOME, ALL, [CpuSet()]),
    ],
)
def test_all_instances_are_woken_once_when_the_online_cpus_change(
    world, caplog, before, after, offline
):
    caplog.set_level("INFO")
    world.online = before
    world.tick()
    world.offline.clear()
    caplog.clear()
    assert world.tick() == []
    assert world.offline == []
    world.online = after
    assert world.tick() == ["held"]
    assert world.tick() == []
    assert world.offline == offline
    assert caplog.messages == [f"Online CPUs changed from {before} to {after}"]


def test_a_change_during_an_unknown_state_of_the_cpus_is_noticed_afterwards(world, caplog):
    caplog.set_level("INFO")
    for online, woken in ((None, []), (ALL, []), (None, []), (SOME, ["held"]), (SOME, [])):
        world.online = online
        assert world.tick() == woken
    assert caplog.messages == [f"Online CPUs changed from {ALL} to {SOME}"]
    assert world.offline == [CpuSet([2, 3])]


def test_cpus_that_become_known_only_later_wake_no_instance(world):
    world.watch._online = None
    assert world.tick() == world.offline == []
    world.online = SOME
    assert world.tick() == ["held"]


def test_a_clock_that_was_set_is_reported_at_the_next_tick(monkeypatch, caplog):
    wall = [1_800_000_000.0]
    steps = Steps(lambda: wall[-1], lambda: 50.0)
    monkeypatch.setattr(module, "ClockWatch", lambda: ClockWatch(steps))
    world = World()
    world.tick()
    assert not caplog.records
    wall.append(wall[0] + 3600)
    world.tick()
    assert "was set forward by 3600 s" in caplog.text


def test_all_instances_are_checked_at_the_interval_and_never_without_one(world):
    for after in (0, DAY_S):
        world.tick(after)
    assert world.checked == []
    world.interval = 10.0
    for after, checks in ((DAY_S, 1), (DAY_S + 9.9, 1), (DAY_S + 10, 2), (DAY_S + 19.9, 2)):
        world.tick(after)
        assert world.checked == [["held"]] * checks


def test_the_history_is_purged_once_a_day(world, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 10.0 * DAY_S)
    for after, times in ((0.1, 1), (DAY_S, 1), (DAY_S + 1.0, 2)):
        world.tick(after)
        assert world.purged == [7 * DAY_S] * times


def test_a_store_that_can_not_be_used_ends_no_watch(monkeypatch, caplog):
    caplog.set_level("DEBUG")
    monkeypatch.setattr(module, "_TICK_S", 0.001)
    world = World()
    world.interval = 3600.0
    world.transitions = exception.StoreUnavailable("disk full")
    world.watch.start()
    assert world.ticked.wait(30 * patience())
    assert world.watch._loop.stop(30 * patience())
    assert {(each.levelname, each.message) for each in caplog.records} == {("DEBUG", "disk full")}
    # The first check is made elsewhere, once libvirt is available.
    world.transitions = []
    world.tick()
    assert world.checked == []
